//! Clients that come and go: each has one name, connects, subscribes, publishes, stays a while, and
//! leaves in one of the manners in which clients leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::ensure;
use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::siege::line::{connect, reset};
use crate::siege::subject::{PREFIX, Subject, Usage, account};
use crate::siege::wire::{field, packet};
use crate::siege::words::Account;
use crate::{Churn, say};

/// A client stays up to this.
const STAY: Duration = Duration::from_secs(16);
/// A broker that grows from minute to minute grows by more than this.
const SPARE_MB: f64 = 32.0;
/// Its first minutes are not looked at.
const WARM_MINUTES: usize = 3;

#[derive(Debug, Default)]
struct Counts {
    comings: AtomicU64,
    welcomes: AtomicU64,
    here: AtomicU64,
    is_over: AtomicBool,
}

pub(crate) async fn churn(args: &Churn) -> anyhow::Result<()> {
    let subject = Subject::start(&args.broker, 2 * args.connections as usize).await?;
    let at_rest = subject.usage()?;
    let counts = Arc::new(Counts::default());
    let mut clients = JoinSet::new();
    for name in 0..args.connections {
        clients.spawn(live(subject.address, name, counts.clone()));
    }
    say("minute   connects  welcomed      here  sessions    rss_mb     fds  threads");
    let began = Instant::now();
    let mut usages: Vec<Usage> = Vec::new();
    let minutes = args.minutes.ceil() as u32;
    for minute in 1..=minutes {
        let at = began + Duration::from_secs_f64(60.0 * args.minutes.min(f64::from(minute)));
        tokio::time::sleep_until(at.into()).await;
        usages.push(tell(&subject, &minute.to_string(), &counts).await?);
    }
    counts.is_over.store(true, Relaxed);
    while clients.join_next().await.is_some() {}
    subject.settle(0, 0).await?;
    let last = tell(&subject, "end", &counts).await?;
    let alarms = subject.alarms();
    ensure!(alarms.is_empty(), "its log: {alarms:?}");
    // Its log, its store, its listeners: what it had before anybody came.
    ensure!(last.descriptors <= at_rest.descriptors + 4, "descriptors are left: {last:?}");
    if let (Some(warm), Some(end)) = (usages.get(WARM_MINUTES - 1), usages.last()) {
        ensure!(end.rss_mb <= warm.rss_mb + SPARE_MB, "memory grows: {warm:?}, then {end:?}");
        ensure!(end.threads <= warm.threads + 2, "threads grow: {warm:?}, then {end:?}");
    }
    Ok(())
}

async fn tell(subject: &Subject, when: &str, counts: &Counts) -> anyhow::Result<Usage> {
    let (usage, inventory) = (subject.usage()?, subject.inventory().await?);
    say(&format!(
        "{when:>6} {:>10} {:>9} {:>9} {:>9} {:>9.1} {:>7} {:>8}",
        counts.comings.load(Relaxed),
        counts.welcomes.load(Relaxed),
        counts.here.load(Relaxed),
        inventory["sessions"],
        usage.rss_mb,
        usage.descriptors,
        usage.threads,
    ));
    Ok(usage)
}

/// One name's comings and goings.
async fn live(address: SocketAddr, name: u64, counts: Arc<Counts>) {
    let mut rng = Rng::with_seed(name);
    let mut life = name;
    // They do not come all at once.
    tokio::time::sleep(STAY.mul_f64(rng.f64())).await;
    while !counts.is_over.load(Relaxed) {
        life += 10_000;
        if let Ok(socket) = connect(address, life).await {
            counts.comings.fetch_add(1, Relaxed);
            counts.here.fetch_add(1, Relaxed);
            // However it ends, it ends here.
            let _ = visit(socket, name, &mut rng, &counts).await;
            counts.here.fetch_sub(1, Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(10..200))).await;
    }
}

async fn visit(
    mut socket: TcpStream,
    name: u64,
    rng: &mut Rng,
    counts: &Counts,
) -> std::io::Result<()> {
    if rng.u32(0..20) == 0 {
        // Before CONNECT, or in the middle of it.
        let hello = connect_packet(name, None, 0, false);
        socket.write_all(&hello[..rng.usize(0..hello.len())]).await?;
        return Ok(());
    }
    let is_silent = rng.u32(0..10) == 0;
    let lasting = rng.bool();
    let account = account("hostile");
    let keep_alive = if is_silent { 1 } else { 60 };
    socket.write_all(&connect_packet(name, Some(&account), keep_alive, lasting)).await?;
    let mut answer = [0; 4096];
    if socket.read(&mut answer).await? > 3 && answer[3] == 0 {
        counts.welcomes.fetch_add(1, Relaxed);
    }
    let topic = format!("{PREFIX}/hostile/churn/{}", name % 1000);
    let mut subscribe = vec![0, 1, 0];
    field(topic.as_bytes(), &mut subscribe);
    subscribe.push(1);
    socket.write_all(&packet(0x82, &subscribe)).await?;
    let mut publish = Vec::new();
    field(topic.as_bytes(), &mut publish);
    publish.extend([0, 2, 0]);
    publish.extend(vec![b'x'; rng.usize(0..500)]);
    let publish = packet(0x32 | u8::from(rng.u32(0..10) == 0), &publish);
    socket.write_all(&publish).await?;
    let stay = tokio::time::sleep(STAY.mul_f64(rng.f64()));
    tokio::pin!(stay);
    loop {
        tokio::select! {
            read = socket.read(&mut answer) => if read? == 0 { return Ok(()) },
            // A silent one is there until the broker has enough of it.
            () = &mut stay, if !is_silent => break,
        }
    }
    match rng.u32(0..5) {
        0 => socket.write_all(&packet(0xe0, &[])).await?,
        1 => reset(&socket),
        2 => socket.write_all(&publish[..rng.usize(1..publish.len())]).await?,
        3 => {
            // Half of it is closed, the rest when the broker has closed its own.
            socket.shutdown().await?;
            while socket.read(&mut answer).await? > 0 {}
        }
        _ => {}
    }
    Ok(())
}

/// CONNECT of MQTT 5, with a will; a lasting session outlives it by an hour, if it may.
fn connect_packet(
    name: u64,
    account: Option<&Account>,
    keep_alive: u16,
    is_lasting: bool,
) -> Vec<u8> {
    let mut body = Vec::new();
    field(b"MQTT", &mut body);
    body.extend([5, 0x04 | if account.is_some() { 0xc0 } else { 0 }]);
    body.extend(keep_alive.to_be_bytes());
    let expiry = if is_lasting { 3600_u32 } else { 0 };
    body.extend([5, 0x11]);
    body.extend(expiry.to_be_bytes());
    field(format!("churn-{name}").as_bytes(), &mut body);
    body.push(0);
    field(format!("{PREFIX}/hostile/gone/{}", name % 1000).as_bytes(), &mut body);
    field(b"gone", &mut body);
    if let Some(Account { user, password }) = account {
        field(user.as_bytes(), &mut body);
        field(password.as_bytes(), &mut body);
    }
    packet(0x10, &body)
}
