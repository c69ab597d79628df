//! What clients do while a container is frozen, it learns once it runs again.

use std::process::Child;

use godwit_tests::{Dial, Fabric, eventually};

use crate::attached::{Attached, BOTH};
use crate::criu::Criu;
use crate::insider::Insider;
use crate::networks::unharmed;

/// A move of 16 MB takes some seconds.
const SLOW: &str = "2MB";

/// Connects twice, is answered, and waits for the file of its name: then it resets one connection and
/// closes the other.
const SCRIPT: &str = r#"
use strict; use Socket;
my ($file, $ip, $port) = @ARGV;
my @peers = map {
    socket(my $peer, PF_INET, SOCK_STREAM, 0) or die $!;
    connect($peer, sockaddr_in($port, inet_aton($ip))) or die $!;
    syswrite($peer, "x"); sysread($peer, my $answer, 1) or die "no answer";
    $peer
} 1, 2;
$| = 1; print "answered\n";
select(undef, undef, undef, .01) until -e "/lab/$file";
setsockopt($peers[0], SOL_SOCKET, SO_LINGER, pack("ii", 1, 0)) or die $!;
close($_) for @peers;
print "left\n";
"#;

/// Somebody who leaves when he is told.
struct Leaver<'a> {
    fabric: &'a Fabric,
    name: String,
    child: Child,
}

impl<'a> Leaver<'a> {
    fn connect(attached: &Attached<'a>, container: &str, when: &str) -> Self {
        let (fabric, name) = (attached.fabric, format!("leaver-{container}-{when}"));
        let (ip, port) = attached.address(container);
        let command = ["perl", "-e", SCRIPT, &name, &ip, &port.to_string()];
        let child = fabric.lab().spawn("client", &command, &fabric.log(&name));
        let leaver = Self { fabric, name, child };
        leaver.until("answered");
        leaver
    }

    fn until(&self, word: &str) {
        eventually(&format!("{} has {word}", self.name), || {
            let said = std::fs::read_to_string(self.fabric.log(&self.name)).unwrap_or_default();
            if said.contains(word) { Ok(()) } else { Err(said) }
        });
    }

    fn leave(&mut self) {
        std::fs::write(self.fabric.lab().share().join(&self.name), "").expect("the lab's share");
        self.until("left");
        let _status = self.child.wait();
    }
}

impl Drop for Leaver<'_> {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

#[test]
fn who_leaves_in_the_gap_is_gone_after_it_and_who_comes_is_answered() {
    let fabric = Fabric::start(3);
    let criu = Criu::install(&fabric, "edge-a");
    let attached = Attached::open(&fabric);
    let stayers = attached.dial("stays");
    let mut early: Vec<_> = BOTH.map(|name| Leaver::connect(&attached, name, "unclaimed")).into();
    let mut late: Vec<_> = BOTH.map(|name| Leaver::connect(&attached, name, "claimed")).into();
    criu.wait();
    let ids = attached.begin(SLOW);
    // Frozen and cut, and nobody has the address.
    criu.await_waiting();
    attached.until_cut("edge-a");
    early.iter_mut().for_each(Leaver::leave);
    let comers = std::thread::scope(|scope| {
        let comers = BOTH.map(|name| {
            let (ip, port) = attached.address(name);
            let log = fabric.log(&format!("comer-{name}"));
            let lab = fabric.lab();
            scope.spawn(move || Dial::start(lab, &format!("{ip}:{port}"), log))
        });
        eventually("both knock", || {
            let knocking = fabric.lab().run("client", &["ss", "-Htn", "state", "syn-sent"]).ok();
            if knocking.lines().count() == BOTH.len() { Ok(()) } else { Err(knocking) }
        });
        criu.work();
        // Frozen, and its address is at the target.
        attached.until_claimed(BOTH.len());
        attached.until(&ids, "it is on its way", |it| it["phase"] == "transferring");
        late.iter_mut().for_each(Leaver::leave);
        attached.moved(&ids);
        comers.map(|comer| comer.join().expect("answered"))
    });
    for name in BOTH {
        let insider = Insider::of(&fabric, name);
        assert!(insider.runs_on("edge-b"), "{name}");
        eventually("the server has the two who stay, and nobody else", || {
            let peers = insider.run(&["ss", "-Htan", "sport = 7000"]).ok();
            let peers: Vec<_> =
                peers.lines().filter(|line| !line.contains("LISTEN")).map(str::to_owned).collect();
            let are_there = peers.iter().all(|line| line.contains("ESTAB"));
            if peers.len() == 2 && are_there { Ok(()) } else { Err(peers) }
        });
    }
    stayers.into_iter().for_each(|(what, dial)| unharmed(&what, dial));
    comers.into_iter().for_each(|dial| unharmed("came in the gap", dial));
}
