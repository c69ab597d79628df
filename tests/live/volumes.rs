//! Volumes move with their container: a scribe writes into one all the while, in every way that
//! there is, and finds on each node what it wrote on the one before.

use godwit_tests::{Fabric, Said, eventually};
use serde_json::Value;

/// Where the volume `data` of the default tenant is on its node.
const DATA: &str = "/var/lib/godwit/volumes/default/data";
/// How slow a move is made that a test wants to interfere with.
const SLOW: &str = "8MB";

/// A fabric of two nodes with the scribe's image.
fn fabric() -> Fabric {
    let fabric = Fabric::start(2);
    let image = fabric.lab().checkout().join("target/workload/scribe.tar");
    fabric.godwit(&["image", "load", &image.to_string_lossy()]).ok();
    fabric
}

/// Starts the scribe with the volume `data`.
fn start(fabric: &Fabric, name: &str, options: &[&str]) -> Said {
    let run = ["run", "--name", name, "-v", "data:/data"];
    fabric.godwit(&[&run[..], options, &["scribe:1", "/data"]].concat())
}

fn shell(fabric: &Fabric, host: &str, script: &str) -> String {
    fabric.lab().run(host, &["sh", "-c", script]).ok()
}

/// So many writes it has checked, all of them; what was wrong fails the test.
#[track_caller]
fn checked(fabric: &Fabric, name: &str) -> u64 {
    let log = fabric.godwit(&["logs", name]).ok();
    assert!(!log.contains("WRONG"), "{log}");
    let last = log.lines().rev().find_map(|line| line.strip_prefix("checked "));
    last.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Waits until it has checked more writes than it has by now, and answers how many.
#[track_caller]
fn writes_on(fabric: &Fabric, name: &str) -> u64 {
    let before = checked(fabric, name);
    eventually("the scribe has written more and checked all", || {
        let now = checked(fabric, name);
        if now > before + 200 { Ok(now) } else { Err(now) }
    })
}

/// Everything that can be seen of what is in the volume besides what the scribe writes.
fn fixtures(fabric: &Fabric, host: &str) -> String {
    let script = format!(
        "cd {DATA}/fixed && find . -printf '%P %y %m %U %G %n %l %T@ %s\n' | sed 's/^\\([^ ]* d .*\\) [0-9]*$/\\1/' | sort && \
         tar --sort=name --xattrs --xattrs-include='*' --numeric-owner --sparse --format=posix \
             --pax-option=exthdr.name=x,globexthdr.name=x,delete=atime,delete=ctime,delete=GNU.sparse.name \
             -cf - . 2>/dev/null | tar -tvf - | sed 's/GNUSparseFile.[0-9]*//' && \
         sha256sum file sub/below/* && tail -c +3221225000 sparse | sha256sum && \
         [ \"$(stat -c %i file)\" = \"$(stat -c %i 'sub/below/the same')\" ] && echo linked && \
         [ \"$(stat -c %b sparse)\" -lt 1000 ] && echo sparse && \
         tar --xattrs -cf - file | grep -aq 'user.color=blue' && echo colored"
    );
    let text = shell(fabric, host, &script);
    assert!(
        ["linked", "sparse", "colored", "socket s", "fifo p"].iter().all(|it| text.contains(it)),
        "{text}"
    );
    text
}

fn make_fixtures(fabric: &Fabric, host: &str) -> String {
    let scribe = fabric.lab().checkout().join("target/workload/scribe");
    let dir = format!("{DATA}/fixed");
    fabric.lab().run(host, &[&*scribe.to_string_lossy(), "fixtures", &dir]).ok();
    fixtures(fabric, host)
}

/// The node has nothing of the volume, nor of a move.
#[track_caller]
fn has_none(fabric: &Fabric, host: &str) {
    eventually("nothing of the volume is left there", || {
        let script = "ls -A /var/lib/godwit/volumes/default /var/lib/godwit/spool 2>/dev/null | grep -v : | grep .";
        let said = fabric.lab().run(host, &["sh", "-c", script]);
        if said.out.is_empty() { Ok(()) } else { Err(said) }
    });
}

/// The node has the volume, and nothing of a move.
#[track_caller]
fn has_it(fabric: &Fabric, host: &str) {
    eventually("the volume is there, and nothing of a move", || {
        let spool = fabric.lab().run(host, &["ls", "-A", "/var/lib/godwit/spool"]);
        let data = fabric.lab().run(host, &["test", "-s", &format!("{DATA}/log")]);
        if spool.out.is_empty() && data.code == 0 { Ok(()) } else { Err((spool, data)) }
    });
}

#[track_caller]
fn moved(fabric: &Fabric, to: &str, way: &[&str]) {
    let said = fabric.godwit(&[&["migrate", "scribe", "--to", to][..], way].concat());
    assert_eq!(said.code, 0, "to {to} {way:?}: {}{}", said.out, said.err);
}

fn volumes(fabric: &Fabric) -> Value {
    fabric.json(&["volume", "ls"])
}

#[test]
fn a_volume_moves_with_its_container_whichever_way_that_moves() {
    let fabric = fabric();
    start(&fabric, "scribe", &["--node", "edge-a"]).ok();
    let all = make_fixtures(&fabric, "edge-a");
    writes_on(&fabric, "scribe");
    let mut from = "edge-a";
    for (to, way) in [
        ("edge-b", &[][..]),
        ("edge-a", &[]),
        ("edge-b", &["--plain"]),
        ("edge-a", &["--plain"]),
        ("edge-b", &["--cold"]),
        ("edge-a", &["--cold"]),
        ("edge-b", &["--bwlimit", "20MB"]),
    ] {
        let before = checked(&fabric, "scribe");
        moved(&fabric, to, way);
        writes_on(&fabric, "scribe");
        let log = fabric.godwit(&["logs", "scribe"]).ok();
        let resumed = log.lines().rev().find_map(|line| line.strip_prefix("resumed at "));
        let resumed: u64 = resumed.expect("it began").parse().expect("a number");
        if way == ["--cold"] {
            assert!(resumed >= before, "what it wrote was lost: {log}");
        } else {
            assert!(resumed < before, "it was started anew: {log}");
        }
        assert_eq!(fixtures(&fabric, to), all, "on {to} {way:?}");
        has_none(&fabric, from);
        has_it(&fabric, to);
        assert_eq!(volumes(&fabric)[0]["node"], to);
        from = to;
    }
}

#[test]
fn a_volume_is_one_containers_at_a_time_and_outlives_it() {
    let fabric = fabric();
    start(&fabric, "scribe", &["--node", "edge-a"]).ok();
    let refused = |said: Said, words: &[&str]| {
        assert_eq!(said.code, 3, "{said:?}");
        assert!(words.iter().all(|word| said.err.contains(word)), "{words:?}: {said:?}");
    };
    refused(start(&fabric, "second", &[]), &["data", "scribe's"]);
    refused(fabric.godwit(&["volume", "rm", "data"]), &["data", "scribe's"]);
    writes_on(&fabric, "scribe");
    moved(&fabric, "edge-b", &[]);
    let written = writes_on(&fabric, "scribe");
    fabric.godwit(&["rm", "-f", "scribe"]).ok();
    assert_eq!(volumes(&fabric)[0]["node"], "edge-b");
    assert_eq!(volumes(&fabric)[0]["container"], Value::Null);
    has_it(&fabric, "edge-b");

    // The next one finds it, where it is.
    refused(start(&fabric, "second", &["--node", "edge-a"]), &["data", "edge-b", "migrate"]);
    start(&fabric, "second", &[]).ok();
    assert_eq!(fabric.container("second")["node"], "edge-b");
    assert!(writes_on(&fabric, "second") > written, "it began anew");
    fabric.godwit(&["rm", "-f", "--volumes", "second"]).ok();
    assert_eq!(volumes(&fabric), Value::Array(Vec::new()));
    has_none(&fabric, "edge-a");
    has_none(&fabric, "edge-b");
    let unknown = fabric.godwit(&["volume", "rm", "data"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");
}

/// A large volume whose container moves so slowly that there is time to interfere.
fn begin_slow_move(fabric: &Fabric) -> (String, String) {
    start(fabric, "scribe", &["--node", "edge-a"]).ok();
    let all = make_fixtures(fabric, "edge-a");
    shell(fabric, "edge-a", &format!("head -c 64M /dev/urandom >{DATA}/large"));
    writes_on(fabric, "scribe");
    fabric.godwit(&["migrate", "scribe", "--to", "edge-b", "--bwlimit", SLOW, "--detach"]).ok();
    let id = fabric.json(&["migration", "ls"])[0]["id"].as_str().expect("an id").to_owned();
    (id, all)
}

/// Waits until some of the volume has arrived on edge-b.
fn await_some(fabric: &Fabric) {
    eventually("some of the volume has arrived", || {
        let said = fabric.lab().run("edge-b", &["test", "-e", &format!("{DATA}/large")]);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
}

fn ended(fabric: &Fabric, id: &str) -> String {
    eventually("the move is over", || {
        let all = fabric.json(&["migration", "ls"]);
        let found = all.as_array().and_then(|all| all.iter().find(|one| one["id"] == id));
        let outcome = found.filter(|one| one["settled"] == true).map(|one| &one["outcome"]);
        outcome.and_then(|outcome| outcome.as_str().map(str::to_owned)).ok_or(all.clone())
    })
}

/// All of it is where it was, and nothing where it was to be.
#[track_caller]
fn stayed(fabric: &Fabric, all: &str) {
    assert_eq!(fabric.container("scribe")["node"], "edge-a");
    writes_on(fabric, "scribe");
    assert_eq!(fixtures(fabric, "edge-a"), all);
    has_none(fabric, "edge-b");
    has_it(fabric, "edge-a");
    assert_eq!(volumes(fabric)[0]["node"], "edge-a");
}

#[test]
fn a_move_that_is_called_off_leaves_the_volume_where_it_was_and_nothing_of_it_elsewhere() {
    let fabric = fabric();
    let (id, all) = begin_slow_move(&fabric);
    await_some(&fabric);
    fabric.godwit(&["migration", "cancel", &id]).ok();
    assert_eq!(ended(&fabric, &id), "cancelled");
    stayed(&fabric, &all);
    // And another one is none the worse for it.
    moved(&fabric, "edge-b", &[]);
    writes_on(&fabric, "scribe");
    assert_eq!(fixtures(&fabric, "edge-b"), all);
    has_none(&fabric, "edge-a");
}

#[test]
fn an_agent_that_dies_while_a_volume_is_on_its_way_loses_nothing_of_it() {
    let fabric = fabric();
    let (id, all) = begin_slow_move(&fabric);
    await_some(&fabric);
    // The target goes on where it was.
    fabric.kill("edge-b");
    fabric.start_agent("edge-b");
    assert_eq!(ended(&fabric, &id), "moved");
    writes_on(&fabric, "scribe");
    assert_eq!(fixtures(&fabric, "edge-b"), all);
    has_none(&fabric, "edge-a");
    // A source forgets what it has said: the move is off.
    fabric.await_fit("edge-b");
    fabric.godwit(&["migrate", "scribe", "--to", "edge-a", "--bwlimit", SLOW, "--detach"]).ok();
    let id = fabric.json(&["migration", "ls"])[0]["id"].as_str().expect("an id").to_owned();
    eventually("some of the volume has arrived", || {
        let said = fabric.lab().run("edge-a", &["test", "-e", &format!("{DATA}/large")]);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
    fabric.kill("edge-b");
    fabric.start_agent("edge-b");
    assert_eq!(ended(&fabric, &id), "aborted");
    writes_on(&fabric, "scribe");
    assert_eq!(fixtures(&fabric, "edge-b"), all);
    has_none(&fabric, "edge-a");
    has_it(&fabric, "edge-b");
}

#[test]
fn a_volume_that_does_not_fit_the_target_is_not_let_in() {
    let fabric = fabric();
    fabric.terminate("edge-b");
    shell(&fabric, "edge-b", "mount -t tmpfs -o size=300m small /var/lib/godwit");
    fabric.start_agent("edge-b");
    fabric.await_fit("edge-b");
    start(&fabric, "scribe", &["--node", "edge-a"]).ok();
    eventually("the controller knows how small its disk is", || {
        let free = fabric.json(&["node", "ls"])[1]["metrics"]["disk_free_bytes"].clone();
        if free.as_u64().is_some_and(|free| free < 300 << 20) { Ok(()) } else { Err(free) }
    });
    let free = || {
        let said = fabric.godwit(&["migrate", "scribe", "--to", "edge-b", "--dry-run"]);
        (said.code, said.err + &said.out)
    };
    eventually("a small one is let in", || {
        let said = free();
        if said.0 == 0 { Ok(()) } else { Err(said) }
    });
    // A hole takes no disk, and is none that does not fit.
    shell(&fabric, "edge-a", &format!("truncate -s 4G {DATA}/hole"));
    assert_eq!(free().0, 0, "{:?}", free());
    shell(&fabric, "edge-a", &format!("head -c 280M /dev/zero | tr '\\0' x >{DATA}/large; sync"));
    let said = fabric.godwit(&["migrate", "scribe", "--to", "edge-b"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("MiB of disk") && said.err.contains("free disk there"), "{said:?}");
    writes_on(&fabric, "scribe");
    has_none(&fabric, "edge-b");
    // What admission could not know: the move is off, and the disk is free again.
    shell(&fabric, "edge-a", &format!("truncate -s 100M {DATA}/large; sync"));
    let slow = ["migrate", "scribe", "--to", "edge-b", "--bwlimit", SLOW, "--detach"];
    fabric.godwit(&slow).ok();
    let id = fabric.json(&["migration", "ls"])[0]["id"].as_str().expect("an id").to_owned();
    await_some(&fabric);
    shell(&fabric, "edge-b", "head -c 230M /dev/zero | tr '\\0' x >/var/lib/godwit/other; true");
    assert_eq!(ended(&fabric, &id), "aborted");
    writes_on(&fabric, "scribe");
    has_none(&fabric, "edge-b");
}
