//! A TCP client of the container notices neither its moves nor those that are called off.

use godwit_tests::Fabric;

use crate::scene::{EDGES, Scene};

/// How many of each; `GODWIT_MOVES` says another number.
const MOVES: usize = 10;

fn moves() -> usize {
    std::env::var("GODWIT_MOVES").map_or(MOVES, |text| text.parse().expect("a number"))
}

#[test]
fn a_tcp_client_stays_connected_through_moves_and_aborts() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let dial = fabric.dial_counter();
    for n in 1..=moves() {
        let (to, other) = if n % 2 == 1 { ("edge-b", "edge-a") } else { ("edge-a", "edge-b") };
        let said = fabric.godwit(&["migrate", "counter", "--to", to]);
        assert_eq!(said.code, 0, "move {n}: {}{}", said.out, said.err);
        let id = scene.begin_slow_move_to(other);
        scene.await_phase(&id, "transferring");
        fabric.godwit(&["migration", "cancel", &id]).ok();
        assert_eq!(scene.await_end(&id)["outcome"], "cancelled", "abort {n}");
    }
    let at = if moves() % 2 == 1 { "edge-b" } else { "edge-a" };
    scene.runs_once_on(at);
    let seen = dial.hang_up();
    assert_eq!((seen.wrong, &seen.lost), (0, &None), "{seen:?}");
}
