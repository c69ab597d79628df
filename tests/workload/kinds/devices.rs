//! Open devices.

use std::fs::File;
use std::io::{self, Read};

use super::{Check, Make, same};

pub const ALL: &[(&str, Make)] = &[
    ("dev-null", || reads("/dev/null")),
    ("dev-zero", || reads("/dev/zero")),
    ("dev-urandom", || reads("/dev/urandom")),
    ("dev-sensor", || reads("/dev/sensor")),
    ("dev-reader", || opens("/dev/reader")),
];

/// Open, and read each round: as much as the first time.
fn reads(path: &str) -> io::Result<Check> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut bytes = [0; 16];
    let wanted = file.read(&mut bytes)?;
    Ok(Box::new(move |_| same(file.read(&mut bytes)?, wanted)))
}

/// Open, and no more.
fn opens(path: &str) -> io::Result<Check> {
    let file = File::options().read(true).write(true).open(path)?;
    Ok(Box::new(move |_| file.metadata().map(drop)))
}
