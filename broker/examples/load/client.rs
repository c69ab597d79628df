//! One connection: a publisher or a subscriber.

use std::io;
use std::sync::Arc;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use crate::Target;
use crate::flow::Flow;
use crate::wire::{self, Arrived, In, Out};

/// Connects and says CONNECT.
pub(crate) async fn connect(target: &Target, name: &str, clean: bool) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(target.to).await.context("no broker")?;
    stream.set_nodelay(true)?;
    if !target.raw {
        let account = target.user.as_deref().zip(target.password.as_deref());
        stream.write_all(&wire::connect(name, clean, account)).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.context("no CONNACK")?;
        ensure!(answer[0] == 0x20 && answer[3] == 0, "refused: {answer:?}");
    }
    Ok(stream)
}

/// Connects and subscribes.
pub(crate) async fn subscribe(
    target: &Target,
    name: &str,
    is_clean: bool,
    filter: &str,
    qos: u8,
) -> anyhow::Result<TcpStream> {
    let mut stream = connect(target, name, is_clean).await?;
    if !target.raw {
        stream.write_all(&wire::subscribe(filter, qos)).await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.context("no SUBACK")?;
        ensure!(answer[0] == 0x90 && answer[4] == qos, "not subscribed: {answer:?}");
    }
    Ok(stream)
}

/// What a publisher sends.
pub(crate) struct Publishing {
    pub(crate) qos: u8,
    pub(crate) topic: String,
    pub(crate) payload: Arc<[u8]>,
    pub(crate) window: u16,
}

/// Publishes as long as the flow lets it.
pub(crate) async fn publish(
    stream: TcpStream,
    what: Publishing,
    flow: Arc<Flow>,
) -> io::Result<()> {
    let (mut out, mut input) = (Out::new(), In::new(16 << 10));
    let mut ids: Vec<u16> = (1..=what.window).rev().collect();
    while !flow.is_over() {
        let room = flow.room();
        tokio::pin!(room);
        room.as_mut().enable();
        let mut is_waiting = false;
        while out.has_room() {
            let Some(&id) = ids.last() else { break };
            if !flow.may_send() {
                is_waiting = true;
                break;
            }
            if what.qos > 0 {
                ids.pop();
            }
            out.publish(what.qos, &what.topic, id, flow.now(), &what.payload);
        }
        let has_written = write(&stream, &mut out)?;
        let has_read = what.qos > 0
            && read(&stream, &mut input, |packet| match packet.first {
                wire::PUBREC => out.answer(wire::PUBREL, packet.id),
                _ => {
                    flow.acknowledged();
                    ids.push(packet.id);
                }
            })?;
        if has_written || has_read {
            // Others of this thread have their turn.
            tokio::task::yield_now().await;
            continue;
        }
        let interest = interest(&out);
        tokio::select! {
            ready = stream.ready(interest), if what.qos > 0 || !out.is_empty() => drop(ready?),
            () = room, if is_waiting => {}
            () = flow.over() => {}
        }
    }
    Ok(())
}

/// Takes and acknowledges whatever comes, and tells the flow of it.
pub(crate) async fn receive(
    stream: TcpStream,
    buffer_bytes: usize,
    flow: Arc<Flow>,
    mut seen: impl FnMut(Arrived),
) -> io::Result<()> {
    let (mut out, mut input) = (Out::new(), In::new(buffer_bytes));
    while !flow.is_over() {
        let mut count = 0;
        let has_read = read(&stream, &mut input, |packet| {
            if packet.is_publish() {
                count += 1;
                seen(packet);
                match packet.qos() {
                    0 => {}
                    1 => out.answer(wire::PUBACK, packet.id),
                    _ => out.answer(wire::PUBREC, packet.id),
                }
            } else if packet.first == wire::PUBREL {
                out.answer(wire::PUBCOMP, packet.id);
            }
        })?;
        flow.delivered(count);
        let has_written = write(&stream, &mut out)?;
        if has_written || has_read {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            ready = stream.ready(interest(&out)) => drop(ready?),
            () = flow.over() => {}
        }
    }
    Ok(())
}

fn interest(out: &Out) -> Interest {
    match out.is_empty() {
        true => Interest::READABLE,
        false => Interest::READABLE | Interest::WRITABLE,
    }
}

fn write(stream: &TcpStream, out: &mut Out) -> io::Result<bool> {
    if out.is_empty() {
        return Ok(false);
    }
    match stream.try_write_vectored(&out.slices()) {
        Ok(count) => {
            out.advance(count);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

fn read(stream: &TcpStream, input: &mut In, found: impl FnMut(Arrived)) -> io::Result<bool> {
    match stream.try_read(input.room()) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => {
            input.arrived(count, found);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
