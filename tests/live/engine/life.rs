//! An ordinary life: created, started, stopped, destroyed, seen all along by the kernel's word.

use godwit_agent::engine::{Engine, EngineError, Podman};
use godwit_proto::container::{Execution, Mode};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::host::{Host, config, nothing_is_left, podman, processes, until};
use super::in_a_host;
use super::victims::{Victim, until_it_is_dead};

#[test]
fn a_container_is_created_started_stopped_and_destroyed() {
    in_a_host(async {
        let host = Host::up().await;
        assert_eq!(host.execution().await, None);
        host.engine.create(&host.spec, &host.netns).await.expect("create");
        host.engine.create(&host.spec, &host.netns).await.expect("create again");
        assert_eq!(host.execution().await, Some(Execution::Absent));
        host.engine.start(&host.spec).await.expect("start");
        host.engine.start(&host.spec).await.expect("start again");
        host.until_ticks_pass(5).await;
        assert_eq!(host.execution().await, Some(Execution::Running));
        let log = host.engine.logs(&host.spec, Some(3)).await.expect("logs");
        let log = String::from_utf8(log).expect("utf-8");
        assert!(
            log.lines().count() == 3 && log.starts_with("tick ") && log.ends_with('\n'),
            "{log:?}"
        );
        host.engine.stop(&host.spec, 1).await.expect("stop");
        host.engine.stop(&host.spec, 1).await.expect("stop again");
        let seen = host.engine.observe().await.expect("observe");
        let seen = seen.iter().find(|seen| seen.id == host.spec.id).expect("still known");
        assert_eq!((seen.execution, seen.exit_code), (Execution::Absent, Some(137)));
        host.down().await;
    });
}

#[test]
fn what_is_started_anew_is_neither_frozen_nor_gated() {
    in_a_host(async {
        for is_staged in [false, true] {
            let host = match is_staged {
                false => Host::dumped(Mode::Plain).await.0,
                true => Host::staged(Mode::Plain).await.0,
            };
            let id = host.podman_id().expect("id");
            kill_it(&id);
            until_it_is_dead(&id).await;
            host.engine.start(&host.spec).await.expect("start");
            // Its next life looks after every mark.
            kill_service(&host).await;
            host.until_ticks_pass(5).await;
            assert_eq!(host.execution().await, Some(Execution::Running), "staged: {is_staged}");
            host.down().await;
        }
    });
}

#[test]
fn what_podman_still_takes_for_running_is_started_all_the_same() {
    in_a_host(async {
        // Late with its word that the container ended, or without one.
        for harm in [Signal::SIGSTOP, Signal::SIGKILL] {
            let host = Host::running(Mode::Plain).await;
            let id = host.podman_id().expect("id");
            let conmon = conmon(&id);
            kill(conmon, harm).expect("harm to conmon");
            until("harm to conmon", || matches!(state(conmon), None | Some('T' | 'Z'))).await;
            kill_it(&id);
            until_it_is_dead(&id).await;
            assert_eq!(status(&id), "running", "podman's word, and not the kernel's");
            let looked_after = async {
                if harm == Signal::SIGSTOP {
                    until("look after conmon", || status(&id) == "stopping").await;
                    kill(conmon, Signal::SIGCONT).expect("kill");
                }
            };
            let (started, ()) = tokio::join!(host.engine.start(&host.spec), looked_after);
            started.expect("start");
            assert_eq!(host.execution().await, Some(Execution::Running), "{harm}");
            host.until_ticks_pass(5).await;
            host.down().await;
        }
    });
}

/// The container's monitor.
fn conmon(podman_id: &str) -> Pid {
    let all = processes();
    let found = all.iter().find(|process| Victim::Conmon.is(process, podman_id));
    Pid::from_raw(found.expect("a monitor").pid)
}

/// The kernel's letter for what the process is at; `None` once it is gone.
fn state(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// podman's word for what the container is at.
fn status(podman_id: &str) -> String {
    podman(&["inspect", "--format", "{{.State.Status}}", podman_id])
}

/// Kills every process of the container, frozen or not.
fn kill_it(podman_id: &str) {
    let group = format!("/sys/fs/cgroup/libpod_parent/libpod-{podman_id}/cgroup.kill");
    std::fs::write(group, "1").expect("cgroup.kill");
}

/// Ends podman's service; returns once another one answers.
async fn kill_service(host: &Host) {
    let before = host.engine.service_pid().expect("a service");
    kill(Pid::from_raw(before.cast_signed()), Signal::SIGKILL).expect("kill");
    until("end of the service", || host.engine.service_pid() != Some(before)).await;
    host.engine.ready().await.expect("ready");
}

#[test]
fn its_address_answers_only_while_it_is_attached() {
    in_a_host(async {
        let host = Host::running(Mode::Plain).await;
        let ip = host.spec.addresses().next().expect("an address");
        let address = (ip, 7000);
        let dial = || async {
            let dial = tokio::net::TcpStream::connect(address);
            matches!(
                tokio::time::timeout(std::time::Duration::from_millis(300), dial).await,
                Ok(Ok(_))
            )
        };
        assert!(dial().await, "attached");
        host.network.cut(host.spec.id).await.expect("cut");
        host.network.cut(host.spec.id).await.expect("cut again");
        assert!(!dial().await, "cut");
        host.network.attach(host.spec.id, &host.spec.interfaces).await.expect("attach");
        host.network.attach(host.spec.id, &host.spec.interfaces).await.expect("attach again");
        assert!(dial().await, "attached again");
        host.down().await;
    });
}

#[test]
fn containers_outlive_the_agent_and_its_service() {
    in_a_host(async {
        let mut host = Host::running(Mode::Plain).await;
        let first = host.engine.service_pid().expect("pid");
        drop(host.engine);
        until("end of the service", || processes().iter().all(|p| p.pid.cast_unsigned() != first))
            .await;
        host.engine = Podman::start(config()).await.expect("start again");
        assert_eq!(host.execution().await, Some(Execution::Running));
        host.until_ticks_pass(5).await;
        host.engine.stop(&host.spec, 0).await.expect("stop, through the new service");
        assert_eq!(host.execution().await, Some(Execution::Absent));
        host.down().await;
    });
}

#[test]
fn a_service_that_is_killed_comes_back() {
    in_a_host(async {
        let host = Host::running(Mode::Plain).await;
        let first = host.engine.service_pid().expect("pid");
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(first.cast_signed()),
            nix::sys::signal::Signal::SIGKILL,
        )
        .expect("kill");
        until("new service", || host.engine.service_pid().is_some_and(|pid| pid != first)).await;
        host.engine.ready().await.expect("ready");
        assert_eq!(host.execution().await, Some(Execution::Running));
        host.until_ticks_pass(5).await;
        host.down().await;
    });
}

#[test]
fn an_image_keeps_its_id_and_names_through_save_and_load() {
    in_a_host(async {
        let host = Host::up().await;
        let held = |images: Vec<godwit_agent::engine::HeldImage>| {
            images.into_iter().find(|image| image.id == host.spec.image)
        };
        let before = held(host.engine.images().await.expect("images")).expect("held");
        let file = host.image();
        host.engine.save_image(&host.spec.image, &file).await.expect("save");
        host.engine.remove_image(&host.spec.image).await.expect("remove");
        host.engine.remove_image(&host.spec.image).await.expect("remove again");
        assert_eq!(held(host.engine.images().await.expect("images")), None);
        assert_eq!(host.engine.load_image(&file).await.expect("load"), host.spec.image);
        let after = held(host.engine.images().await.expect("images")).expect("held again");
        assert_eq!(after.names, before.names);
        host.down().await;
    });
}

#[test]
fn a_limit_that_the_node_cannot_keep_is_said() {
    in_a_host(async {
        let mut host = Host::up().await;
        host.spec.limits.memory_bytes = Some(64 << 20);
        let has_memory = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
            .is_ok_and(|list| list.contains("memory"));
        // podman 5.4 takes the limit, and runc fails on it.
        let made = match host.engine.create(&host.spec, &host.netns).await {
            Ok(()) => host.engine.start(&host.spec).await,
            refused => refused,
        };
        match made {
            Ok(()) => assert!(has_memory),
            Err(EngineError::Refused { message, .. }) => {
                assert!(!has_memory && message.contains("memory"), "{message}");
            }
            Err(other) => panic!("{other}"),
        }
        host.down().await;
    });
}

#[test]
fn a_removal_that_was_cut_short_is_finished_by_the_next() {
    in_a_host(async {
        let mut host = Host::running(Mode::Plain).await;
        let id = host.podman_id().expect("id");
        // Removal waits for the container's helpers when podman has forgotten it already.
        let dir = tempfile::tempdir().expect("tempdir");
        let runc = dir.path().join("runc");
        std::fs::copy("/bin/sh", &runc).expect("copy");
        let mut helper = std::process::Command::new(runc);
        let helper = helper.args(["-c", "read line", &id]).stdin(std::process::Stdio::piped());
        let mut helper = helper.spawn().expect("spawn");
        tokio::select! {
            done = host.engine.destroy(&host.spec) => panic!("it did not wait: {done:?}"),
            () = until("end of podman's record", || host.podman_id().is_none()) => {}
        }
        drop(host.engine);
        helper.kill().and_then(|()| helper.wait()).expect("end");
        let group = format!("/sys/fs/cgroup/libpod_parent/libpod-{id}");
        for left in [&group, &format!("/run/runc/{id}")] {
            std::fs::create_dir_all(left).expect("mkdir");
        }
        host.engine = Podman::start(config()).await.expect("start again");
        assert_eq!(host.execution().await, Some(Execution::Absent), "nobody would clear it up");
        host.engine.destroy(&host.spec).await.expect("destroy");
        assert_eq!(host.execution().await, None);
        nothing_is_left(&id).await;
        host.down().await;
    });
}
