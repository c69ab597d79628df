//! Any weather, and those in which something particular must hold.

use std::time::Duration;

use proptest::prelude::*;

use super::World;
use super::weather::{Weather, any_weather};
use crate::stream::pace::MAX_WINDOW_BYTES;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn every_byte_arrives_in_any_weather(weather in any_weather()) {
        World::new(weather).run();
    }
}

#[test]
fn in_fair_weather_nothing_is_sent_twice() {
    let world = World::new(Weather::fair(50 << 20)).run();
    assert_eq!(world.sent_bytes, 50 << 20);
}

#[test]
fn a_fair_link_is_kept_busy() {
    let world = World::new(Weather::fair(50 << 20)).run();
    let ideal = Duration::from_secs_f64((50 << 20) as f64 / 1e8);
    assert!(world.now < ideal.mul_f64(1.1), "{:?} instead of {ideal:?}", world.now);
}

#[test]
fn a_lost_chunk_costs_no_timeout() {
    // Eight of eight hundred are lost. Patience is a tenth of a second at the least, so
    // less than that over all shows that it never ran out.
    let weather = Weather { lost_percent: 1, ..Weather::fair(50 << 20) };
    let fair = World::new(Weather::fair(50 << 20)).run();
    let world = World::new(weather).run();
    let late = world.now - fair.now;
    assert!(late < Duration::from_millis(50), "{late:?} late");
    assert!(world.sent_bytes < (50 << 20) * 103 / 100, "{}", world.sent_bytes);
}

#[test]
fn a_restarted_receiver_is_sent_again_at_most_a_window() {
    let weather = Weather { receiver_restarts: vec![250], ..Weather::fair(50 << 20) };
    let world = World::new(weather).run();
    assert!(world.sent_bytes > 50 << 20, "nothing was in flight: the test shows nothing");
    assert!(world.sent_bytes <= (50 << 20) + MAX_WINDOW_BYTES);
}

#[test]
fn a_dark_link_costs_at_most_a_window_and_its_own_time() {
    let weather = Weather { dark_ms: (200, 900), ..Weather::fair(50 << 20) };
    let world = World::new(weather).run();
    // Wants that go into the dark ask anew; they are lost together with the chunks.
    assert!(world.sent_bytes <= (50 << 20) + 2 * MAX_WINDOW_BYTES);
    assert!(world.now < Duration::from_millis(2500), "{:?}", world.now);
}

#[test]
fn a_slow_link_is_not_flooded() {
    let weather = Weather { bytes_per_second: 1_000_000, ..Weather::fair(5 << 20) };
    let world = World::new(weather).run();
    assert_eq!(world.sent_bytes, 5 << 20, "patience ran out although chunks kept coming");
}

#[test]
fn a_narrow_link_is_kept_busy_and_free_for_others() {
    let rate = 1_250_000;
    for latency_ms in [1, 25, 100] {
        let narrow = Weather { bytes_per_second: rate, latency_ms, ..Weather::fair(5 << 20) };
        let world = World::new(Weather { chunk_bytes: 12 << 10, ..narrow }).run();
        let least = Duration::from_secs_f64((5 << 20) as f64 / rate as f64);
        assert!(
            world.now < least * 6 / 5 + Duration::from_millis(500),
            "{latency_ms}: {:?}",
            world.now
        );
        let ms = world.most_asked_bytes * 1000 / rate;
        assert!(ms <= 50 + 3 * latency_ms, "{latency_ms}: others wait {ms} ms");
    }
}

/// A stream that grows by 16 KiB every 5 ms, 100 times, over a link of 20 ms.
fn growing(is_in_order: bool) -> Weather {
    let growths_ms = (1..=100).map(|step| step * 5).collect();
    Weather { latency_ms: 20, growths_ms, is_in_order, ..Weather::fair(1600 << 10) }
}

#[test]
fn what_appears_is_sent_without_being_asked_for_again() {
    let world = World::new(growing(false)).run();
    assert_eq!(world.sent_bytes, 1600 << 10, "something was sent twice");
    assert!(world.now < Duration::from_millis(500 + 20 + 2), "{:?}", world.now);
    assert!(world.wants < 50, "{} wants for 100 growths", world.wants);
}

#[test]
fn a_stream_that_rests_is_not_asked_for_all_the_time() {
    let weather = Weather { growths_ms: vec![100, 10_000], ..Weather::fair(1 << 20) };
    let world = World::new(weather).run();
    assert_eq!(world.sent_bytes, 1 << 20);
    assert!(world.wants < 20, "{} wants", world.wants);
}

#[test]
fn a_loss_costs_what_waits_in_memory_no_second_journey() {
    let weather = Weather { lost_percent: 5, is_in_order: true, ..Weather::fair(20 << 20) };
    let world = World::new(weather).run();
    assert!(world.sent_bytes > 20 << 20, "nothing was lost: the test shows nothing");
    assert!(world.sent_bytes < (20 << 20) * 115 / 100, "{}", world.sent_bytes);
}
