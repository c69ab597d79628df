//! A broker that nobody stops.

mod support;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use support::Hub;

#[test]
fn a_runtime_that_goes_away_takes_the_broker_with_it() {
    let (gone, seen) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let hub = runtime.block_on(Hub::start());
        drop(runtime);
        gone.send(()).expect("a listener");
        drop(hub);
    });
    seen.recv_timeout(Duration::from_secs(60)).expect("the engine holds the runtime");
}
