//! The armed hand-over: podman, conmon and runc have done their part before the freeze.

use std::collections::BTreeMap;

use godwit_agent::engine::Engine;
use godwit_proto::container::{Execution, Mode};

use super::host::{Host, Sent, images, nothing_is_left, podman, processes, until};
use super::in_a_host;

/// Runs a command in the container.
fn exec(host: &Host, command: &str) -> String {
    podman(&["exec", &host.podman_id().expect("id"), "/bin/sh", "-c", command])
}

#[test]
fn an_armed_container_runs_on_and_is_disarmed_without_a_trace() {
    in_a_host(async {
        let host = Host::running(Mode::Live).await;
        for _ in 0..2 {
            host.arm().await;
            assert_eq!(host.execution().await, Some(Execution::Running));
            host.until_ticks_pass(20).await;
            let id = host.podman_id().expect("id");
            assert_eq!(podman(&["inspect", "-f", "{{.State.Status}}", &id]), "running");
            assert_eq!(exec(&host, "echo $COLOUR"), "blue");
        }
        host.engine.thaw(&host.spec, Mode::Live).await.expect("thaw");
        let waits = |name: &str| processes().iter().any(|p| p.name.starts_with(name) && !p.zombie);
        until("end of the checkpoint", || !waits("criu") && !waits("runc")).await;
        host.goes_on().await;
        host.down().await;
    });
}

#[test]
fn what_it_does_while_it_is_armed_moves_with_it() {
    in_a_host(async {
        let mut host = Host::running(Mode::Live).await;
        exec(&host, "echo before > /changed; echo x > /removed; echo then > /dev/shm/segment");
        host.arm().await;
        exec(&host, "echo after > /changed; rm /removed; echo new > /new");
        exec(&host, "echo now > /dev/shm/segment; mkdir /dev/shm/d; echo there > /dev/shm/d/x");
        host.until_ticks_pass(50).await;
        host.freeze_and_dump(&Sent::default()).await;
        let at_freeze = host.ticks().len();
        // A copy that is refused takes nothing of it away.
        for _ in 0..2 {
            host.stage().await;
            assert_eq!(host.execution().await, Some(Execution::Gated));
            assert_eq!(host.ticks().len(), at_freeze);
            let id = host.podman_id().expect("id");
            host.engine.destroy(&host.spec).await.expect("destroy");
            nothing_is_left(&id).await;
        }
        host.stage().await;
        host.open().await;
        assert_eq!(
            exec(&host, "cat /changed /new; test -e /removed || echo gone"),
            "after\nnew\ngone"
        );
        assert_eq!(exec(&host, "cat /dev/shm/segment /dev/shm/d/x"), "now\nthere");
        // And it can move on.
        host.dump().await;
        host.stage().await;
        host.open().await;
        host.down().await;
    });
}

/// Some of it podman leaves out of what it knows of the container.
#[test]
fn what_it_changed_of_its_image_long_ago_moves_with_it() {
    in_a_host(async {
        let mut host = Host::running(Mode::Live).await;
        exec(&host, "cd /image; echo mine > changed; rm -r removed emptied; mkdir emptied");
        exec(&host, "echo mine > /image/emptied/new");
        host.until_ticks_pass(50).await;
        for _ in 0..2 {
            host.arm().await;
            host.freeze_and_dump(&Sent::default()).await;
            host.stage().await;
            host.open().await;
            let files = exec(&host, "cd /image; cat changed; ls; ls emptied");
            assert_eq!(files, "mine\nchanged\nemptied\nnew");
            host.until_ticks_pass(50).await;
        }
        host.engine.freeze(&host.spec, Mode::Plain).await.expect("freeze");
        let plain = host.engine.dump(&host.spec, Mode::Plain, &host.image()).await;
        let error = plain.expect_err("without the file").to_string();
        assert!(error.contains("/image/changed and 2 more"), "{error}");
        host.engine.thaw(&host.spec, Mode::Plain).await.expect("thaw");
        host.goes_on().await;
        host.down().await;
    });
}

#[test]
fn every_byte_of_the_images_is_sent_once() {
    in_a_host(async {
        let mut host = Host::running(Mode::Live).await;
        host.arm().await;
        let sent = Sent::default();
        host.freeze_and_dump(&sent).await;
        let mut written = BTreeMap::new();
        for entry in std::fs::read_dir(images(&host.spec)).expect("images") {
            let entry = entry.expect("entry");
            if entry.file_type().expect("type").is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                written.insert(name, entry.metadata().expect("metadata").len());
            }
        }
        // The target has it from the metadata already.
        written.remove("descriptors.json");
        assert!(written.contains_key("pages-1.img"), "{written:?}");
        assert_eq!(sent.files(), written);
        host.stage().await;
        host.open().await;
        host.down().await;
    });
}

#[test]
fn one_that_forks_wildly_between_arming_and_freeze_moves_whole() {
    in_a_host(async {
        let mut host = Host::running(Mode::Live).await;
        host.arm().await;
        let before = processes().len();
        exec(&host, "touch /storm");
        until("storm of processes", || processes().len() > before + 20).await;
        host.freeze_and_dump(&Sent::default()).await;
        host.stage().await;
        host.open().await;
        exec(&host, "rm /storm");
        until("end of the storm", || processes().len() < before + 5).await;
        host.goes_on().await;
        host.down().await;
    });
}
