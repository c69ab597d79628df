//! The broker against the text of MQTT 3.1.1 and 5, on real sockets.
//!
//! Each test is named after the clause of MQTT 5 that it checks (`mqtt_3_1_2_4_…`), in both versions
//! where both have what it says; `mqtt5_…` is of that version alone, `mqtt311_…` of 3.1.1 and its
//! clauses. Its doc names the normative statements; docs/CONFORMANCE.md lists them all. `client` is a
//! client that does what it is told, right or wrong; `wire` is its grammar, `words` its words.

mod borders;
mod client;
mod connect;
mod flow;
mod flow_control;
mod keep_alive;
mod malformed;
mod message_expiry;
mod properties;
mod reasons;
mod retain;
mod session;
mod share;
mod subscribe;
mod subscribe_options;
mod take_over;
mod topic_alias;
mod topics;
mod will;
mod wire;
mod words;

use std::collections::BTreeSet;
use std::path::Path;

/// docs/CONFORMANCE.md names every test of this suite, and none that is not there.
#[test]
fn the_list_of_tests_is_whole() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |path: &Path| std::fs::read_to_string(path).expect("a readable file");
    let listed = text(&here.join("../docs/CONFORMANCE.md"));
    let listed: BTreeSet<_> =
        listed.split('`').filter(|name| name.starts_with("mqtt")).map(str::to_owned).collect();
    let mut written = BTreeSet::new();
    for file in here.join("tests/conformance").read_dir().expect("a directory") {
        let source = text(&file.expect("a file").path());
        let names = source.split("async fn ").skip(1).filter_map(|rest| rest.split('(').next());
        written.extend(names.filter(|name| name.starts_with("mqtt")).map(str::to_owned));
    }
    assert_eq!(listed, written);
}
