//! Whoever is killed, alone or with another, while an end is armed or the source is dumped: the
//! container goes on where it was or waits where it is staged, and moves when it is asked again.

use godwit_agent::engine::Engine;
use godwit_agent::moments::Noted;
use godwit_proto::container::{Execution, Mode};

use super::dumps::{dump_until_seized, let_criu_go_on};
use super::host::{Host, Sent, images, metadata, no_trace_is_left};
use super::in_a_host;
use super::victims::{Victim, kill_all, ones_and_pairs};

/// Those whose death podman can be rid of; a running container whose conmon died is podman's loss.
const OF_A_SOURCE: [Victim; 4] = [Victim::Service, Victim::Runc, Victim::Criu, Victim::Proxy];

/// It moves, to the same host.
async fn moves(host: &mut Host) {
    host.dump().await;
    host.stage().await;
    host.open().await;
}

#[test]
fn an_armed_source_runs_on_whoever_of_them_is_killed() {
    in_a_host(async {
        let mut host = Host::running(Mode::Live).await;
        for victims in ones_and_pairs(&OF_A_SOURCE) {
            // At a level that is shown without RUST_LOG.
            tracing::error!(?victims, "killing");
            host.arm().await;
            kill_all(&victims, &host.podman_id().expect("id"));
            host.engine.ready().await.expect("ready");
            host.until_ticks_pass(5).await;
            host.engine.freeze(&host.spec, Mode::Live).await.expect("freeze");
            let (images, noted) = (images(&host.spec), Noted::default());
            let dumped =
                host.engine.dump_armed(&host.spec, &images, &Sent::default(), &noted).await;
            assert!(dumped.is_err(), "{victims:?}: nobody was there to dump it");
            host.engine.thaw(&host.spec, Mode::Live).await.expect("thaw");
            host.goes_on().await;
        }
        moves(&mut host).await;
        host.down().await;
    });
}

#[test]
fn a_source_in_its_dump_goes_on_whoever_of_them_is_killed() {
    in_a_host(async {
        let mut host = Host::running(Mode::Live).await;
        for victims in ones_and_pairs(&OF_A_SOURCE) {
            // At a level that is shown without RUST_LOG.
            tracing::error!(?victims, "killing");
            dump_until_seized(&host).await;
            kill_all(&victims, &host.podman_id().expect("id"));
            let_criu_go_on();
            host.engine.ready().await.expect("ready");
            host.engine.thaw(&host.spec, Mode::Live).await.expect("thaw");
            host.goes_on().await;
        }
        moves(&mut host).await;
        host.down().await;
    });
}

#[test]
fn an_armed_target_is_armed_anew_whoever_of_them_is_killed() {
    in_a_host(async {
        let (mut host, at_freeze) = Host::dumped(Mode::Live).await;
        for victims in ones_and_pairs(&Victim::ALL) {
            // At a level that is shown without RUST_LOG.
            tracing::error!(?victims, "killing");
            host.become_target().await;
            let (images, metadata) = (images(&host.spec), metadata(&host.spec));
            host.engine.await_images(&host.spec, &images, &metadata).await.expect("arm");
            let id = host.podman_id().expect("id");
            kill_all(&victims, &id);
            host.engine.ready().await.expect("ready");
            let noted = Noted::default();
            let staged = host.engine.stage_armed(&host.spec, &images, &metadata, &noted).await;
            staged.unwrap_or_else(|error| panic!("{victims:?}: {error}"));
            if host.podman_id().as_ref() != Some(&id) {
                no_trace_is_left(&id);
            }
            assert_eq!(host.execution().await, Some(Execution::Gated), "{victims:?}");
            assert_eq!(host.ticks().len(), at_freeze, "{victims:?}: the copy ran");
        }
        host.open().await;
        host.down().await;
    });
}
