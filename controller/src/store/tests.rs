use std::collections::BTreeMap;

use godwit_proto::container::{ContainerSpec, Interface, Limits, Mode};
use godwit_proto::id::{ContainerId, Epoch, Run, Tenant};
use godwit_proto::timeline::Moment;
use jiff::Timestamp;
use uuid::Uuid;

use super::*;

const EPOCH: Epoch = Epoch { generation: 3, counter: 1 };
/// A nonce beyond what SQLite can count.
const RUN: Run = Run { generation: 3, nonce: u64::MAX - 5 };

fn tenant() -> Tenant {
    Tenant::default_tenant()
}

fn container(name: &str, last_octet: u8) -> ContainerRow {
    let now = Timestamp::now();
    ContainerRow {
        spec: ContainerSpec {
            id: ContainerId(Uuid::new_v4()),
            tenant: tenant(),
            name: name.parse().unwrap(),
            image: "ab".repeat(32).parse().unwrap(),
            image_name: "localhost/counter:latest".into(),
            args: vec!["--fast".into()],
            env: BTreeMap::from([("A".into(), "ü".into())]),
            labels: BTreeMap::new(),
            limits: Limits { memory_bytes: Some(1 << 40), nano_cpus: None },
            interfaces: vec![Interface {
                mac: [2, 0x67, 10, 77, 1, last_octet],
                addresses: vec![format!("10.77.1.{last_octet}/16").parse().unwrap()],
                gateways: vec!["10.77.0.1".parse().unwrap()],
                overlay: None,
            }],
            ports: Vec::new(),
            resolver: None,
            volumes: Vec::new(),
            devices: Vec::new(),
        },
        node: "edge-a".parse().unwrap(),
        epoch: EPOCH,
        intent: Intent::Create,
        state: ContainerState::Creating,
        error: None,
        exit_code: None,
        since: now,
        created: now,
    }
}

fn attempt(id: &str, container: &ContainerRow, counter: u32) -> AttemptRow {
    AttemptRow {
        id: id.parse().unwrap(),
        container: container.spec.id,
        tenant: tenant(),
        name: container.spec.name.clone(),
        epoch: Epoch { counter, ..EPOCH },
        source: "edge-a".parse().unwrap(),
        target: "edge-b".parse().unwrap(),
        mode: Mode::Live,
        bwlimit: Some(1_000_000),
        opener: RUN,
        decider: r#"{"stage":"preparing"}"#.into(),
        settled: false,
        phase: "preparing".into(),
        outcome: None,
        reason: None,
        remedy: None,
        timeline: vec![Seen { moment: Moment::Freezing, us: 1 }],
        phases: vec![PhaseMark { phase: "preparing".into(), started: Timestamp::now(), ms: None }],
        bytes: 0,
        wire_bytes: 0,
        gap_ms: None,
        predicted: Some(Prediction { bytes: 1, total_ms: 2, gap_ms: 3 }),
        started: Timestamp::now(),
        ended: None,
    }
}

struct Fixture {
    directory: tempfile::TempDir,
    store: Store,
}

fn fresh() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("godwit.db")).unwrap();
    Fixture { directory, store }
}

impl Fixture {
    fn reopened(self) -> Self {
        drop(self.store);
        let store = Store::open(&self.directory.path().join("godwit.db")).unwrap();
        Self { directory: self.directory, store }
    }
}

#[test]
fn the_steps_lead_from_an_empty_file_to_the_schema() {
    Migrations::from_slice(STEPS).validate().unwrap();
}

#[test]
fn every_table_is_strict_and_every_write_is_synced() {
    let store = fresh().store;
    let loose: i64 = store
        .db
        .query_row(
            "SELECT count(*) FROM pragma_table_list
             WHERE schema = 'main' AND type = 'table' AND strict = 0 AND name NOT LIKE 'sqlite_%'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(loose, 0);
    let synchronous: i64 =
        store.db.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
    assert_eq!(synchronous, 2, "FULL");
}

#[test]
fn all_of_a_container_survives_a_restart() {
    let fixture = fresh();
    let mut row = container("counter", 2);
    fixture.store.insert_container(&row).unwrap();
    row.node = "edge-b".parse().unwrap();
    row.state = ContainerState::InDoubt;
    row.intent = Intent::Rest;
    row.error = Some("silent".into());
    row.exit_code = Some(-1);
    fixture.store.save_container(&row).unwrap();
    let store = fixture.reopened().store;
    assert_eq!(store.containers().unwrap(), [row.clone()]);
    assert_eq!(store.container(row.spec.id).unwrap(), Some(row.clone()));
    assert_eq!(store.container_named(&tenant(), &row.spec.name).unwrap(), Some(row.clone()));
    store.delete_container(row.spec.id).unwrap();
    assert_eq!(store.container(row.spec.id).unwrap(), None);
}

#[test]
fn a_name_and_an_address_belong_to_one_container() {
    let store = fresh().store;
    let first = container("counter", 2);
    store.insert_container(&first).unwrap();
    for rival in [container("counter", 3), container("other", 2)] {
        let refused = store.insert_container(&rival);
        assert!(matches!(refused, Err(StoreError::Taken { .. })), "{refused:?}");
    }
    store.delete_container(first.spec.id).unwrap();
    store.insert_container(&container("counter", 2)).unwrap();
}

#[test]
fn a_container_of_an_earlier_controller_has_an_interface_with_its_address() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("godwit.db");
    let mut row = container("counter", 2);
    let old = Migrations::from_slice(&STEPS[..3]);
    {
        let mut db = Connection::open(&path).unwrap();
        old.to_latest(&mut db).unwrap();
        let mut spec = serde_json::to_value(&row.spec).unwrap();
        spec.as_object_mut().unwrap().remove("interfaces");
        spec["address"] = serde_json::json!({
            "ip": "10.77.1.2", "prefix": 16, "mac": [2, 103, 10, 77, 1, 2], "gateway": "10.77.0.1",
        });
        db.execute(
            "INSERT INTO compute (id, tenant, name, spec, node, epoch_generation, epoch_counter,
                                  intent, state, since, created)
             VALUES (?1, 'default', 'counter', ?2, 'edge-a', 3, 1, 'create', 'creating', ?3, ?3)",
            params![row.spec.id.to_string(), spec.to_string(), row.since.to_string()],
        )
        .unwrap();
    }
    let store = Store::open(&path).unwrap();
    let found = store.container(row.spec.id).unwrap().unwrap();
    assert_eq!(found.spec, row.spec);
    row.spec.id = ContainerId(Uuid::new_v4());
    row.spec.name = "other".parse().unwrap();
    let refused = store.insert_container(&row);
    assert!(matches!(refused, Err(StoreError::Taken { .. })), "{refused:?}");
}

#[test]
fn a_volume_is_one_containers_at_a_time_and_where_that_is() {
    let store = fresh().store;
    let with = |name: &str, last_octet| {
        let mut row = container(name, last_octet);
        row.spec.volumes = vec!["data:/data".parse().unwrap()];
        row
    };
    let volume = || {
        let volume = store.volumes().unwrap().remove(0);
        (volume.node.to_string(), volume.container)
    };
    let mut first = with("first", 2);
    store.insert_container(&first).unwrap();
    assert_eq!(volume(), ("edge-a".into(), Some(first.spec.id)));
    store.insert_container(&with("second", 3)).unwrap_err();
    assert_eq!(store.containers().unwrap().len(), 1);
    first.node = "edge-b".parse().unwrap();
    store.save_container(&first).unwrap();
    assert_eq!(volume(), ("edge-b".into(), Some(first.spec.id)));
    store.delete_volume(&tenant(), &"data".parse().unwrap()).unwrap();
    assert_eq!(volume().1, Some(first.spec.id), "a container has it");

    store.delete_container(first.spec.id).unwrap();
    assert_eq!(volume(), ("edge-b".into(), None), "it outlives its container");
    let mut second = with("second", 3);
    second.spec.tenant = "alice".parse().unwrap();
    store.insert_container(&second).unwrap();
    assert_eq!(store.volumes().unwrap().len(), 2, "another tenant's is another");
    store.delete_volume(&tenant(), &"data".parse().unwrap()).unwrap();
    assert_eq!(volume().1, Some(second.spec.id));
}

#[test]
fn a_container_that_is_not_there_cannot_be_saved() {
    let saved = fresh().store.save_container(&container("counter", 2));
    assert!(matches!(saved, Err(StoreError::Missing { .. })), "{saved:?}");
}

#[test]
fn the_first_verdict_of_an_epoch_stands() {
    let fixture = fresh();
    let id = container("counter", 2).spec.id;
    let first = fixture.store.decide(&tenant(), id, EPOCH, Verdict::Abort, RUN).unwrap();
    assert_eq!((first.outcome, first.run), (Verdict::Abort, RUN));
    let fixture = fixture.reopened();
    let later = Run { generation: 4, nonce: 1 };
    let second = fixture.store.decide(&tenant(), id, EPOCH, Verdict::Commit, later).unwrap();
    assert_eq!(second, first);
    let next = Epoch { counter: 2, ..EPOCH };
    let other = fixture.store.decide(&tenant(), id, next, Verdict::Commit, later).unwrap();
    assert_eq!(other.outcome, Verdict::Commit);
}

#[test]
fn amendments_are_kept_in_order() {
    let store = fresh().store;
    let id = container("counter", 2).spec.id;
    let line = |kind| AmendmentRow {
        kind,
        node: Some("edge-a".parse().unwrap()),
        run: RUN,
        why: "the target was rebooted".into(),
        recorded: Timestamp::now(),
    };
    let lines = [line(Amendment::Overruled), line(Amendment::Returned)];
    for line in &lines {
        store.amend(&tenant(), id, EPOCH, line).unwrap();
    }
    assert_eq!(store.amendments(id, EPOCH).unwrap(), lines);
    assert_eq!(store.amendments(id, Epoch { counter: 9, ..EPOCH }).unwrap(), []);
}

#[test]
fn a_generation_never_falls() {
    let fixture = fresh();
    assert_eq!(fixture.store.generation().unwrap(), 0);
    fixture.store.set_generation(9).unwrap();
    fixture.store.set_generation(10).unwrap();
    fixture.store.set_generation(4).unwrap();
    assert_eq!(fixture.reopened().store.generation().unwrap(), 10);
}

#[test]
fn the_fabric_keeps_its_id() {
    let fixture = fresh();
    let id = fixture.store.fabric().unwrap();
    assert_eq!(fixture.reopened().store.fabric().unwrap(), id);
}

#[test]
fn a_settled_attempt_becomes_history() {
    let fixture = fresh();
    let row = container("counter", 2);
    let mut first = attempt("m-0003-1", &row, 1);
    let second = attempt("m-0003-2", &row, 2);
    fixture.store.insert_attempt(&first).unwrap();
    fixture.store.insert_attempt(&second).unwrap();
    first.settled = true;
    first.phase = "done".into();
    first.outcome = Some("moved".into());
    first.bytes = 1 << 40;
    first.wire_bytes = 5;
    first.gap_ms = Some(321);
    first.phases[0].ms = Some(7);
    first.ended = Some(Timestamp::now());
    first.decider = "{}".into();
    fixture.store.save_attempt(&first).unwrap();
    let store = fixture.reopened().store;
    assert_eq!(store.unsettled_attempts().unwrap(), std::slice::from_ref(&second));
    assert_eq!(store.migration(&first.id).unwrap(), Some(first.clone()));
    let of = MigrationFilter { container: Some(row.spec.id), ..Default::default() };
    assert_eq!(store.migrations(&of, 10).unwrap(), [second.clone(), first]);
    assert_eq!(store.migrations(&of, 1).unwrap(), std::slice::from_ref(&second));
    let live = MigrationFilter { unsettled: true, ..Default::default() };
    assert_eq!(store.migrations(&live, 10).unwrap(), [second]);
    let strangers = MigrationFilter { tenant: Some("bob".parse().unwrap()), ..Default::default() };
    assert_eq!(store.migrations(&strangers, 10).unwrap(), []);
}

#[test]
fn an_epoch_has_one_attempt() {
    let store = fresh().store;
    let row = container("counter", 2);
    store.insert_attempt(&attempt("m-0003-1", &row, 1)).unwrap();
    let again = store.insert_attempt(&attempt("m-0003-9", &row, 1));
    assert!(matches!(again, Err(StoreError::Taken { .. })), "{again:?}");
}

#[test]
fn a_request_is_claimed_once() {
    let fixture = fresh();
    let mut row = RequestRow {
        tenant: tenant(),
        id: "1".parse().unwrap(),
        verb: "migrate".into(),
        subject: None,
        status: "accepted".into(),
        reply: "{}".into(),
    };
    assert_eq!(fixture.store.claim_request(&row).unwrap(), Claim::New);
    row.subject = Some("m-0003-1".into());
    row.status = "done".into();
    row.reply = r#"{"status":"done"}"#.into();
    fixture.store.answer_request(&row).unwrap();
    let store = fixture.reopened().store;
    let again = RequestRow { verb: "delete".into(), ..row.clone() };
    assert_eq!(store.claim_request(&again).unwrap(), Claim::Seen(row.clone()));
    let bob = RequestRow { tenant: "bob".parse().unwrap(), status: "accepted".into(), ..row };
    assert_eq!(store.claim_request(&bob).unwrap(), Claim::New, "ids are each tenant's own");
    assert_eq!(store.open_requests().unwrap(), std::slice::from_ref(&bob));
    let later = Timestamp::now() + jiff::SignedDuration::from_secs(60);
    assert_eq!(store.prune_requests(later).unwrap(), 1, "only the ended one");
    assert_eq!(store.open_requests().unwrap(), [bob]);
}

#[test]
fn a_name_moves_to_the_image_that_takes_it() {
    let store = fresh().store;
    let image = |digit: &str, names: &[&str]| ImageRow {
        tenant: tenant(),
        id: digit.repeat(64).parse().unwrap(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        arch: "amd64".into(),
        os: "linux".into(),
        size_bytes: 7,
        archive_bytes: 8,
        created: Timestamp::now(),
    };
    store.save_image(&image("a", &["x:1", "x:2"])).unwrap();
    store.save_image(&image("b", &["x:1"])).unwrap();
    let names: BTreeMap<_, _> = store
        .images(&tenant())
        .unwrap()
        .into_iter()
        .map(|row| (row.id.short().to_owned(), row.names))
        .collect();
    assert_eq!(names[&"a".repeat(12)], ["x:2"]);
    assert_eq!(names[&"b".repeat(12)], ["x:1"]);
}

#[test]
fn two_connections_wait_for_each_other() {
    let fixture = fresh();
    let path = fixture.directory.path().join("godwit.db");
    let writers: Vec<_> = (0..4_u8)
        .map(|writer| {
            let path = path.clone();
            std::thread::spawn(move || {
                let store = Store::open(&path).unwrap();
                for n in 0..10 {
                    let name = format!("c-{writer}-{n}");
                    store.insert_container(&container(&name, writer * 10 + n)).unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(fixture.store.containers().unwrap().len(), 40);
}

#[test]
fn a_damaged_row_is_an_error_and_not_a_guess() {
    let store = fresh().store;
    let row = container("counter", 2);
    store.insert_container(&row).unwrap();
    store.db.execute("UPDATE compute SET state = 'dancing'", []).unwrap();
    assert!(matches!(store.containers(), Err(StoreError::Query { .. })));
}

#[tokio::test]
async fn a_handle_answers_from_its_own_thread() {
    let fixture = fresh();
    let handle = StoreHandle::open(&fixture.directory.path().join("godwit.db")).unwrap();
    handle.call(|store| store.set_generation(5)).await.unwrap();
    assert_eq!(fixture.store.generation().unwrap(), 5);
    let here = std::thread::current().id();
    let there = handle.call(|_| Ok(std::thread::current().id())).await.unwrap();
    assert_ne!(there, here);
}
