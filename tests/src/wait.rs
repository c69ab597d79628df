//! Waiting for a condition instead of for a time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long a condition may take to come true before the test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is `Ok`, and fails with the last `Err` after a minute.
///
/// # Panics
/// When it never comes true.
#[track_caller]
pub fn eventually<T, E: Debug>(what: &str, ask: impl FnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, ask)
}

/// As [`eventually`], with another patience.
///
/// # Panics
/// When it never comes true.
#[track_caller]
pub fn eventually_within<T, E: Debug>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<T, E>,
) -> T {
    let begin = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) => {
                let waited = begin.elapsed();
                assert!(
                    waited < patience,
                    "waited {waited:.1?} in vain until {what}; last: {last:?}"
                );
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
