//! A broker that goes on where an earlier one ended, however that ended.

use std::collections::HashMap;
use std::sync::Arc;

use crate::accounts::Accounts;
use crate::config::Limits;
use crate::core::session::{NEVER, Session};
use crate::core::{BYTES, Core, Effects, SESSIONS};
use crate::store::{Image, Op};

/// A client whose connection ended with the broker has so long to come back before its will is
/// published: it is not known to be gone.
const GRACE_MS: u64 = 30_000;

impl Core {
    /// The state that was kept, judged by the accounts as they are now. What became due meanwhile is
    /// due at once.
    pub(crate) fn restore(
        limits: Limits,
        image: Image,
        accounts: Arc<dyn Accounts>,
        now_ms: u64,
        effects: &mut Effects,
    ) -> Self {
        let mut core = Self::new(limits, accounts.clone());
        core.now_ms = now_ms;
        core.next_message = image.next_message;
        core.next_serial = next_serial(&image);
        for (message, account) in image.retained {
            core.retained.insert(message, account.as_ref());
        }
        let mut keys = HashMap::new();
        for stored in image.sessions {
            let (user, client) = &stored.client;
            let serial = stored.serial;
            let Some(rights) = accounts.rights(user.as_deref(), client) else {
                effects.ops.push(Op::EndSession { serial });
                continue;
            };
            let holder = core.held.enter(user.as_ref());
            core.held.add(holder, SESSIONS, 1);
            let mut session = Session::new(stored.client.clone(), serial, holder, rights);
            session.expiry_seconds = stored.expiry_seconds;
            session.is_kept = true;
            session.will = stored.will;
            session.ends_ms = stored.ends_ms;
            session.will_at_ms = stored.will_at_ms;
            let was_connected = stored.ends_ms.is_none()
                && (stored.expiry_seconds != NEVER || session.will.is_some());
            if was_connected {
                if session.expiry_seconds != NEVER {
                    session.ends_ms = Some(now_ms + 1000 * u64::from(session.expiry_seconds));
                }
                if session.will_at_ms.is_none()
                    && let Some(will) = &session.will
                {
                    let delay_ms = (1000 * u64::from(will.delay_seconds)).max(GRACE_MS);
                    session.will_at_ms = Some(now_ms + delay_ms);
                }
                effects.ops.push(Op::session(&session));
            }
            let alarms = [session.ends_ms, session.will_at_ms];
            let key = core.sessions.insert(session);
            core.alarms.extend(alarms.into_iter().flatten().map(|at| (at, key)));
            core.by_client.insert(stored.client, key);
            keys.insert(stored.serial, key);
        }
        for (serial, filter, subscription) in image.subscriptions {
            if let Some(&key) = keys.get(&serial) {
                core.add_subscription(key, &filter, subscription);
            }
        }
        for (serial, sent) in image.in_flight {
            let Some(&key) = keys.get(&serial) else { continue };
            *core.kept.entry(sent.due.message.number).or_insert(0) += 1;
            let session = &mut core.sessions[key];
            core.held.add(session.holder, BYTES, sent.due.message.weight());
            session.next_place = session.next_place.max(sent.due.place + 1);
            session.last_id = session.last_id.max(sent.packet_id.get());
            session.push_sent(sent);
        }
        for (serial, due) in image.queued {
            let Some(&key) = keys.get(&serial) else { continue };
            *core.kept.entry(due.message.number).or_insert(0) += 1;
            let session = &mut core.sessions[key];
            core.held.add(session.holder, BYTES, due.message.weight());
            session.next_place = session.next_place.max(due.place + 1);
            session.push_due(due);
        }
        for (serial, id) in image.received {
            if let Some(&key) = keys.get(&serial) {
                core.sessions[key].received.insert(id);
            }
        }
        core
    }
}

/// No session that is kept had so high a serial number, nor the publisher of any message: No Local
/// tells by it whose a message is.
fn next_serial(image: &Image) -> u64 {
    let under_way = image.in_flight.iter().map(|(_, sent)| &sent.due.message);
    let queued = image.queued.iter().map(|(_, due)| &due.message);
    let retained = image.retained.iter().map(|(message, _)| message);
    let publishers = under_way.chain(queued).chain(retained).map(|message| message.from);
    let serials = image.sessions.iter().map(|stored| stored.serial);
    serials.chain(publishers).max().unwrap_or(0) + 1
}
