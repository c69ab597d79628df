//! The hand-over, step by step, with the ticks as witness.

use std::time::Duration;

use godwit_agent::engine::{Engine, EngineConfig, Podman};
use godwit_agent::moments::Noted;
use godwit_proto::container::{Execution, Mode};

use super::host::{Host, config, nothing_is_left, podman, until};
use super::in_a_host;

#[test]
fn a_dump_leaves_the_source_frozen_and_a_thaw_lets_it_go_on() {
    in_a_host(async {
        let host = Host::running(Mode::Plain).await;
        host.engine.freeze(&host.spec, Mode::Plain).await.expect("freeze");
        assert_eq!(host.execution().await, Some(Execution::Frozen));
        let at_freeze = host.ticks().len();
        host.dump().await;
        assert_eq!(host.execution().await, Some(Execution::Frozen));
        assert_eq!(host.ticks().len(), at_freeze, "it ran between the freeze and the dump's end");
        host.engine.thaw(&host.spec, Mode::Plain).await.expect("thaw");
        host.engine.thaw(&host.spec, Mode::Plain).await.expect("thaw again");
        host.goes_on().await;
        host.down().await;
    });
}

#[test]
fn a_staged_copy_runs_only_once_it_is_opened() {
    in_a_host(async {
        let (mut host, at_freeze) = Host::staged(Mode::Plain).await;
        host.engine.stage(&host.spec, Mode::Plain, &host.image()).await.expect("stage again");
        assert_eq!(host.execution().await, Some(Execution::Gated));
        assert_eq!(host.ticks().len(), at_freeze);
        host.engine.open(&host.spec, Mode::Plain, &Noted::default(), || {}).await.expect("open");
        host.engine
            .open(&host.spec, Mode::Plain, &Noted::default(), || {})
            .await
            .expect("open again");
        assert_eq!(host.execution().await, Some(Execution::Running));
        host.goes_on().await;
        // And it can move on.
        host.dump().await;
        host.stage().await;
        host.open().await;
        host.down().await;
    });
}

#[test]
fn a_refused_copy_is_gone_and_the_same_image_stages_again() {
    in_a_host(async {
        let (mut host, at_freeze) = Host::dumped(Mode::Plain).await;
        for _ in 0..2 {
            host.stage().await;
            let id = host.podman_id().expect("id");
            host.engine.destroy(&host.spec).await.expect("destroy");
            assert_eq!(host.execution().await, None);
            nothing_is_left(&id).await;
        }
        host.stage().await;
        assert_eq!(host.ticks().len(), at_freeze);
        host.open().await;
        host.down().await;
    });
}

#[test]
fn a_copy_at_the_gate_dies_with_the_agent() {
    in_a_host(async {
        let (mut host, at_freeze) = Host::staged(Mode::Plain).await;
        drop(host.engine);
        host.engine = Podman::start(config()).await.expect("start again");
        assert_eq!(host.execution().await, Some(Execution::Absent));
        assert_eq!(host.ticks().len(), at_freeze);
        host.stage().await;
        host.open().await;
        host.down().await;
    });
}

#[test]
fn nothing_is_removed_through_a_mount_that_criu_left() {
    in_a_host(async {
        let host = Host::running(Mode::Plain).await;
        let id = host.podman_id().expect("id");
        let userdata = format!("/var/lib/containers/storage/overlay-containers/{id}/userdata");
        let precious = tempfile::tempdir().expect("tempdir");
        std::fs::write(precious.path().join("file"), "").expect("write");
        let bind = |at: &str| {
            std::fs::create_dir_all(at).expect("mkdir");
            let flags = nix::mount::MsFlags::MS_BIND;
            nix::mount::mount(Some(precious.path()), at, None::<&str>, flags, None::<&str>)
                .expect("bind");
        };
        bind(&format!("{userdata}/checkpoint/left"));
        bind(&format!("{userdata}/.criu.cgyard.a"));
        host.dump().await;
        assert!(precious.path().join("file").exists(), "removed by the dump");
        for at in ["checkpoint/left", ".criu.cgyard.b", ".criu.cgyard.b"] {
            bind(&format!("{userdata}/{at}"));
        }
        bind(&format!("/run/runc/{id}/criu-root"));
        host.engine.destroy(&host.spec).await.expect("destroy");
        assert!(precious.path().join("file").exists(), "removed by the destruction");
        nothing_is_left(&id).await;
        host.down().await;
    });
}

#[test]
fn a_damaged_image_is_refused_with_a_reason() {
    in_a_host(async {
        let (mut host, _) = Host::dumped(Mode::Plain).await;
        let whole = std::fs::metadata(host.image()).expect("image").len();
        let file = std::fs::OpenOptions::new().write(true).open(host.image()).expect("open");
        file.set_len(whole / 2).expect("truncate");
        host.become_target().await;
        let error =
            host.engine.stage(&host.spec, Mode::Plain, &host.image()).await.expect_err("half");
        assert!(error.to_string().contains("EOF"), "{error}");
        host.down().await;
    });
}

#[test]
fn a_cold_move_takes_the_files_along() {
    in_a_host(async {
        let mut host = Host::up().await;
        let script = "read n < /n || n=0; n=$((n+1)); echo $n > /n; rm -f /bin/cat; echo tick $n; trap exit TERM; while :; do usleep 5000; done";
        host.spec.args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        host.engine.create(&host.spec, &host.netns).await.expect("create");
        host.engine.start(&host.spec).await.expect("start");
        until("tick 1", || host.ticks() == [1]).await;
        host.engine.freeze(&host.spec, Mode::Cold).await.expect("stop");
        host.engine.dump(&host.spec, Mode::Cold, &host.image()).await.expect("dump");
        host.engine.destroy(&host.spec).await.expect("destroy");
        host.engine.prepare(&host.spec, Mode::Cold, &host.netns).await.expect("prepare");
        host.engine.stage(&host.spec, Mode::Cold, &host.image()).await.expect("stage");
        host.engine.stage(&host.spec, Mode::Cold, &host.image()).await.expect("stage again");
        assert_eq!(host.execution().await, Some(Execution::Absent));
        host.engine.open(&host.spec, Mode::Cold, &Noted::default(), || {}).await.expect("open");
        until("tick 2", || host.ticks() == [1, 2]).await;
        host.down().await;
    });
}

/// podman gives a restore up 240 s after it began, and knows nothing of what is let go after that.
/// Here a copy counts as given up at once.
#[test]
fn a_copy_that_waited_too_long_at_the_gate_is_built_again_before_it_is_opened() {
    in_a_host(async {
        for mode in [Mode::Plain, Mode::Live] {
            let (mut host, at_freeze) = Host::dumped(mode).await;
            drop(host.engine);
            let config = EngineConfig { good_for: Duration::ZERO, ..config() };
            host.engine = Podman::start(config).await.expect("start again");
            host.stage().await;
            let first = host.pids();
            assert!(!first.is_empty() && host.engine.is_stale(&host.spec));
            host.stage_again().await;
            assert_eq!(host.execution().await, Some(Execution::Gated));
            assert!(first.is_disjoint(&host.pids()), "it is the copy that was given up");
            assert_eq!(host.ticks().len(), at_freeze);
            host.open().await;
            let id = host.podman_id().expect("id");
            let status = podman(&["inspect", "-f", "{{.State.Status}}", &id]);
            assert_eq!(status, "running", "podman knows it");
            host.down().await;
        }
    });
}

/// The agent dies as it builds a copy again: podman has forgotten the one before, the mark says all.
#[test]
fn a_copy_that_podman_has_forgotten_still_counts_as_one_that_never_ran() {
    in_a_host(async {
        let (mut host, at_freeze) = Host::staged(Mode::Live).await;
        let id = host.podman_id().expect("id");
        host.engine.destroy(&host.spec).await.expect("destroy");
        std::fs::write(config().rundir.join(format!("gated/{}", host.spec.id)), "").expect("mark");
        drop(host.engine);
        host.engine = Podman::start(config()).await.expect("start again");
        let seen = host.engine.observe().await.expect("observe");
        let seen: Vec<_> = seen.iter().map(|seen| (seen.execution, seen.never_opened)).collect();
        assert_eq!(seen, [(Execution::Absent, true)]);
        nothing_is_left(&id).await;
        host.stage().await;
        assert_eq!(host.ticks().len(), at_freeze);
        host.open().await;
        host.down().await;
    });
}
