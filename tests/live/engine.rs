//! The engine against real podman, runc and CRIU, on one lab host that plays both ends: a
//! container is dumped, destroyed, and staged again.
//!
//! ```text
//! test ─▶ a lab ─▶ scripts/lab enter edge-a THIS-PROGRAM --exact THIS-TEST ─▶ its body
//! ```

use std::any::type_name;

use godwit_tests::Lab;

mod armed;
mod armed_kills;
mod dumps;
mod host;
mod kills;
mod life;
mod moves;
mod victims;

/// Tells a test that it is in the host.
const INSIDE: &str = "GODWIT_TEST_INSIDE";

/// Runs the body of the test that calls this in a host of a new lab.
#[track_caller]
fn in_a_host<F: Future<Output = ()>>(body: F) {
    if std::env::var_os(INSIDE).is_some() {
        return tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime")
            .block_on(body);
    }
    // The body is written in the test, and so named after it: crate::module::test::{{closure}}.
    let test = type_name::<F>().split_once("::").expect("a path").1;
    let test = test.trim_end_matches("::{{closure}}");
    let lab = Lab::up(1);
    let this = std::env::current_exe().expect("a test has a path").display().to_string();
    let inside = format!("{INSIDE}=1");
    let said = lab.run("edge-a", &["env", &inside, &this, "--exact", test, "--nocapture"]);
    let has_passed = said.code == 0 && said.out.contains("1 passed; 0 failed; 0 ignored");
    assert!(has_passed, "{test} in the host: {}\n{}\n{}", said.code, said.out, said.err);
}
