//! Clients that are not ours at work with the real `godwit-broker`, as a user sets it up: accounts,
//! rules, a store, and every transport with certificates of its own authority.
//!
//! `scripts/interop-clients` installs them; where one is missing its tests fail with what to do.
//! docs/CONFORMANCE.md says what is exercised with whom.
//!
//! Reading order: `broker` (what they meet), `programs` (how they are run), then a file a client.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

mod broker;
mod browser;
mod mosquitto;
mod node_red;
mod paho;
mod programs;
mod rumqttc;

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

/// The outcome of something that must happen; a test that waits for ever fails.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(50), future).await.expect("it never happened")
}

/// What somebody said so far, line by line.
struct Lines(watch::Receiver<Vec<String>>);

impl Lines {
    /// The first line with all of `words`, as soon as it is there.
    async fn line(&self, words: &[&str]) -> String {
        let has_all = |line: &&String| words.iter().all(|word| line.contains(word));
        let mut said = self.0.clone();
        let said = in_time(said.wait_for(|said| said.iter().any(|line| has_all(&line)))).await;
        said.expect("it ended").iter().find(has_all).unwrap().clone()
    }

    fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }
}
