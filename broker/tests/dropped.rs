//! A broker that nobody stops.

mod support;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use support::{Hub, up};

#[test]
fn a_runtime_that_goes_away_takes_the_broker_with_it_and_nothing_panics() {
    let (panicked, panics) = mpsc::channel();
    std::panic::set_hook(Box::new(move |what| {
        // Nobody listens after the test.
        let _ = panicked.send(what.to_string());
    }));
    let (gone, seen) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let hub = runtime.block_on(async {
            let hub = Hub::start().await;
            // It runs: the engine answered this one.
            let (session, _inbox) = hub.session("c", []);
            up(&session).await;
            hub
        });
        drop(runtime);
        gone.send(()).expect("a listener");
        drop(hub);
    });
    seen.recv_timeout(Duration::from_secs(60)).expect("the engine holds the runtime");
    assert_eq!(panics.try_iter().collect::<Vec<_>>(), Vec::<String>::new());
}
