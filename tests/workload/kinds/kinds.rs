//! Holds one thing of each kind that a process can hold of its kernel, and checks all the while
//! that each is still what it was. What a check finds under way (bytes in a pipe, an event that
//! nobody has read) it takes, and leaves the same again: whenever it is frozen, all of it is
//! under way.
//!
//!     kinds NAME…         holds those until it is killed
//!     kinds try NAME…     makes those, and ends
//!     kinds serve PATH    listens on a unix socket and answers what it is told
//!     kinds echo          answers what is typed, as a shell
//!
//! It says `holds NAME` for each, then `checked N` (so many rounds), and `WRONG NAME: …` of what it
//! found different, which it then holds no more. One that it cannot make it calls `WITHOUT NAME: …`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener;
use std::time::Duration;

mod devices;
mod events;
mod files;
mod kernel;
mod locks;
mod memory;
mod pipes;
mod processes;
mod sockets;
mod timers;
mod unusual;

/// Checks one thing, in the round of that number, the first being 1.
type Check = Box<dyn FnMut(u64) -> io::Result<()>>;
/// Makes one.
type Make = fn() -> io::Result<Check>;

/// How long nothing is done between two rounds.
const PAUSE: Duration = Duration::from_millis(20);
/// Rounds between two words.
const SAID_EVERY: u64 = 10;

fn main() -> io::Result<()> {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", path] => return serve(path),
        ["echo"] => return pipes::echo(),
        _ => {}
    }
    let is_tried = names.first().is_some_and(|first| first == "try");
    names.drain(..usize::from(is_tried));
    let all = [
        locks::ALL,
        timers::ALL,
        events::ALL,
        pipes::ALL,
        sockets::ALL,
        memory::ALL,
        files::ALL,
        processes::ALL,
        devices::ALL,
        unusual::ALL,
    ]
    .concat();
    let mut held = Vec::new();
    for name in names {
        let Some((_, make)) = all.iter().find(|(known, _)| *known == name) else {
            return Err(io::Error::other(format!("{name}: there is no such kind")));
        };
        match make() {
            Ok(check) => {
                println!("holds {name}");
                held.push((name, check));
            }
            Err(error) => println!("WITHOUT {name}: {error}"),
        }
    }
    if is_tried {
        return Ok(());
    }
    for round in 1.. {
        held.retain_mut(|(name, check)| {
            let found = check(round);
            if let Err(error) = &found {
                println!("WRONG {name}: {error}");
            }
            found.is_ok()
        });
        if round % SAID_EVERY == 0 {
            println!("checked {round}");
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Answers one after the other, each until it hangs up.
fn serve(path: &str) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    println!("listens");
    for peer in listener.incoming() {
        let mut peer = peer?;
        let mut byte = [0];
        while peer.read(&mut byte)? == 1 {
            peer.write_all(&byte)?;
        }
    }
    Ok(())
}

/// An error with that text unless it is true.
fn must(is_so: bool, otherwise: impl FnOnce() -> String) -> io::Result<()> {
    if is_so { Ok(()) } else { Err(io::Error::other(otherwise())) }
}

/// They are the same, or an error says what both are.
fn same<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> io::Result<()> {
    must(found == wanted, || format!("{found:?}, not {wanted:?}"))
}
