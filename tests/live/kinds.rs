//! What becomes of each kind of thing that a process can hold: `docs/WHAT-MOVES.md` says it, and
//! is held to it here, row by row.

use godwit_tests::{Fabric, Said, eventually};

use crate::leftovers::holds_nothing;
use crate::scene::EDGES;

const TABLES: &str = include_str!("../../docs/WHAT-MOVES.md");
/// The volume `data` of the default tenant, on its node.
const DATA: &str = "/var/lib/godwit/volumes/default/data";

/// The kinds in the first column of a section's table, each with the third.
fn rows(section: &str) -> Vec<(&'static str, &'static str)> {
    let text = TABLES.split("\n## ").find(|text| text.starts_with(section)).expect("a section");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let kinds = rows.flat_map(|row| {
        let mut cells = row.trim_matches('|').split(" | ").map(str::trim);
        let kinds = cells.next().unwrap_or_default();
        let third = cells.nth(1).unwrap_or_default();
        kinds.split(", ").map(move |kind| (kind.trim_matches('`'), third))
    });
    let kinds: Vec<_> = kinds.collect();
    assert!(!kinds.is_empty(), "{section} has no rows");
    kinds
}

/// A fabric with the image of the kinds.
fn fabric() -> Fabric {
    let fabric = Fabric::start(EDGES);
    let image = fabric.lab().checkout().join("target/workload/kinds.tar");
    fabric.godwit(&["image", "load", &image.to_string_lossy()]).ok();
    fabric
}

/// A container that holds those kinds, on edge-a.
struct Holder<'a> {
    fabric: &'a Fabric,
    name: String,
    kinds: Vec<&'static str>,
}

impl<'a> Holder<'a> {
    fn start(fabric: &'a Fabric, name: &str, kinds: &[&'static str]) -> Self {
        let holder = Self { fabric, name: name.to_owned(), kinds: kinds.to_vec() };
        holder.run(&[]);
        holder
    }

    fn run(&self, options: &[&str]) {
        let run = ["run", "--name", &self.name, "--node", "edge-a"];
        self.fabric.godwit(&[&run[..], options, &["kinds:1"], &self.kinds].concat()).ok();
    }

    fn log(&self) -> String {
        self.fabric.godwit(&["logs", &self.name]).ok()
    }

    /// What it found different.
    fn wrong(&self) -> Vec<String> {
        self.log().lines().filter(|line| line.starts_with("WRONG")).map(str::to_owned).collect()
    }

    fn rounds(&self) -> u64 {
        let log = self.log();
        let last = log.lines().rev().find_map(|line| line.strip_prefix("checked "));
        last.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Waits until it has checked all again, twice over: what was under way has been taken, and
    /// what has been left since, too.
    #[track_caller]
    fn goes_on(&self) {
        let before = self.rounds();
        eventually("all is checked again", || {
            let now = self.rounds();
            if now >= before + 20 { Ok(()) } else { Err(self.log()) }
        });
    }

    /// It holds all that it was told to.
    #[track_caller]
    fn holds_all(&self) {
        self.goes_on();
        let log = self.log();
        for kind in &self.kinds {
            assert!(log.lines().any(|line| line == format!("holds {kind}")), "{kind}: {log}");
        }
    }

    fn move_to(&self, node: &str) -> Said {
        self.fabric.godwit(&["migrate", &self.name, "--to", node])
    }

    #[track_caller]
    fn moved_to(&self, node: &str) {
        let said = self.move_to(node);
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        self.goes_on();
        assert_eq!(self.fabric.container(&self.name)["node"], node);
    }

    /// It cannot be moved, for that reason, and goes on as if nobody had tried.
    #[track_caller]
    fn is_refused(&self, reason: &str) {
        self.holds_all();
        let said = self.move_to("edge-b");
        assert_ne!(said.code, 0, "{} has moved", self.name);
        assert!(said.err.contains(reason), "`{reason}` is not in {said:?}");
        self.goes_on();
        assert_eq!(self.wrong(), [""; 0], "{}", self.name);
        let container = self.fabric.container(&self.name);
        assert_eq!(
            (&container["node"], &container["state"]),
            (&"edge-a".into(), &"running".into())
        );
    }

    /// Runs a script in its node, with the pid of its first process in `$pid`.
    fn script(&self, script: &str) -> String {
        let container = self.fabric.container(&self.name);
        let (node, id) = (container["node"].as_str(), container["id"].as_str());
        let find = "pid=$(podman inspect -f '{{.State.Pid}}' godwit-$0); ";
        let command = ["sh", "-ec", &format!("{find}{script}"), id.expect("an id")];
        self.fabric.lab().run(node.expect("a node"), &command).ok()
    }
}

#[test]
fn what_moves_is_the_same_on_the_other_node_and_what_is_lost_is_known() {
    let fabric = fabric();
    let kinds = |section| rows(section).iter().map(|(kind, _)| *kind).collect::<Vec<_>>();
    let all = Holder::start(&fabric, "all", &kinds("Moves"));
    let lost = Holder::start(&fabric, "lost", &kinds("Lost"));
    let forbidden = Holder::start(&fabric, "forbidden", &kinds("Not to be had"));
    all.holds_all();
    lost.holds_all();
    for node in ["edge-b", "edge-a"] {
        all.moved_to(node);
        assert_eq!(all.wrong(), [""; 0], "on {node}");
    }
    lost.moved_to("edge-b");
    let wrong = lost.wrong();
    for (kind, found) in rows("Lost") {
        let says =
            |line: &String| line.starts_with(&format!("WRONG {kind}: ")) && line.contains(found);
        assert!(wrong.iter().any(says), "{kind}: {wrong:?}");
    }
    for (kind, answer) in rows("Not to be had") {
        let log = forbidden.log();
        let says =
            |line: &str| line.starts_with(&format!("WITHOUT {kind}: ")) && line.contains(answer);
        assert!(log.lines().any(says), "{kind}: {log}");
    }
}

#[test]
fn what_cannot_be_taken_along_is_refused_with_a_reason_and_goes_on_where_it_is() {
    let fabric = fabric();
    for (kind, reason) in rows("Refused") {
        let holder = Holder { fabric: &fabric, name: kind.into(), kinds: vec![kind] };
        if kind == "unix-outside" {
            outside(&holder, || holder.is_refused(reason));
        } else {
            holder.run(&[]);
            holder.is_refused(reason);
        }
        fabric.godwit(&["rm", "-f", kind]).ok();
    }
    holds_nothing(&fabric, "edge-b");
}

/// Does something while the container is connected to a server that is none of its processes.
fn outside(holder: &Holder<'_>, does: impl FnOnce()) {
    let fabric = holder.fabric;
    holder.run(&["-v", "data:/data", "--no-start"]);
    let program = fabric.lab().checkout().join("target/workload/kinds");
    let (program, socket) = (program.to_string_lossy(), format!("{DATA}/socket"));
    let log = fabric.log("outside");
    let mut server = fabric.lab().spawn("edge-a", &[&program, "serve", &socket], &log);
    eventually("the server listens", || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        if said.contains("listens") { Ok(()) } else { Err(said) }
    });
    fabric.godwit(&["start", &holder.name]).ok();
    does();
    server.kill().expect("kill");
    server.wait().expect("wait");
}

#[test]
fn a_mount_put_on_by_hand_moves() {
    let fabric = fabric();
    let holder = Holder::start(&fabric, "mounts", &["flock"]);
    holder.script(
        "cd /proc/$pid/root; mkdir own memory; mount -N $pid --bind /image /own; \
         mount -N $pid -t tmpfs none /memory; echo by-hand >memory/file",
    );
    holder.moved_to("edge-b");
    let seen = holder
        .script("cd /proc/$pid/root; ls own; cat memory/file; cut -d' ' -f5 /proc/$pid/mountinfo");
    for wanted in ["emptied\n", "by-hand\n", "/own\n", "/memory\n"] {
        assert!(seen.contains(wanted), "{wanted:?}: {seen}");
    }
}

#[test]
fn what_was_started_by_podman_exec_is_lost() {
    let fabric = fabric();
    let holder = Holder::start(&fabric, "entered", &["flock"]);
    holder.goes_on();
    let id = fabric.container("entered")["id"].as_str().expect("an id").to_owned();
    let (name, log) = (format!("godwit-{id}"), fabric.log("exec"));
    let exec = ["podman", "exec", &name, "/kinds", "posix-lock"];
    let mut exec = fabric.lab().spawn("edge-a", &exec, &log);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("it runs", || if said().contains("checked") { Ok(()) } else { Err(said()) });
    holder.moved_to("edge-b");
    assert!(!exec.wait().expect("wait").success(), "it has ended well: {}", said());
    assert!(said().contains("container has already been removed"), "{}", said());
    let programs = holder.script("tr '\\0' ' ' </proc/$pid/cmdline; pgrep -c -x kinds");
    assert!(programs.ends_with(" 1\n") || programs.ends_with("flock 1\n"), "{programs}");
}
