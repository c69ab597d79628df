//! A broker that has no descriptors left, in a process of its own.

use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::sync::{Arc, Mutex};

use tokio::net::TcpSocket;
use tokio::sync::watch;

use super::*;

const ALONE: &str = "LISTENER_TEST_ALONE";

/// A log that can be waited for.
#[derive(Clone)]
struct Log(Arc<Mutex<watch::Sender<String>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.lock().unwrap().send_modify(|log| log.push_str(&text));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_shortage_of_descriptors_is_survived_and_seldom_spoken_of() {
    if std::env::var_os(ALONE).is_some() {
        return tokio::runtime::Runtime::new().unwrap().block_on(starve());
    }
    let (_, path) = module_path!().split_once("::").unwrap();
    let name = format!("{path}::a_shortage_of_descriptors_is_survived_and_seldom_spoken_of");
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(ALONE, "yes")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

async fn starve() {
    let (log, mut heard) = watch::channel(String::new());
    let log = Log(Arc::new(Mutex::new(log)));
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).init();
    let mut hall = Hall::open(config(&[Transport::Mqtt])).await;
    let client = TcpSocket::new_v4().unwrap();

    let mut hoard = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        hoard.push(file);
    }
    let mut client = client.connect(hall.address()).await.unwrap();
    client.write_all(HELLO).await.unwrap();
    let complaints = |log: &String| log.matches("cannot accept a client").count();
    in_time(heard.wait_for(|log| complaints(log) == 2)).await.unwrap();
    // The second one says how often the first could have been repeated.
    let tries = heard.borrow().rsplit_once("times=").unwrap().1.trim().parse::<u32>().unwrap();
    assert!((2..=10).contains(&tries), "{tries}");
    assert!(hall.arrivals.try_recv().is_err());

    drop(hoard);
    hall.arrival().await;
    assert!(hall.close().await);
}
