//! What a client calls topics by.

use std::collections::HashMap;
use std::num::NonZeroU16;

use bytestring::ByteString;
use rmqtt_codec::types::Publish;
use rmqtt_codec::v5::DisconnectReasonCode;

use super::Ended;
use super::read::protocol;

/// How many topics may have an alias, in each direction ...
pub(super) const ALIASES: u16 = 64;
/// ... and how long they may be together: they are remembered as long as the connection lasts.
pub(super) const ALIASED_BYTES: usize = 64 << 10;

/// The aliases that a client has given.
#[derive(Debug, Default)]
pub(super) struct Aliases(HashMap<NonZeroU16, ByteString>);

impl Aliases {
    /// Puts the topic where an alias stands for it, and notes new aliases.
    pub(super) fn resolve(&mut self, publish: &mut Publish) -> Result<(), Ended> {
        let alias = publish.properties.as_ref().and_then(|properties| properties.topic_alias);
        let Some(alias) = alias else {
            return match publish.topic.is_empty() {
                true => Err(protocol("a PUBLISH without a topic")),
                false => Ok(()),
            };
        };
        let broken = |reason, what| Err(Ended::Broken { reason, what });
        if alias.get() > ALIASES {
            let what = format!("topic alias {alias} is above {ALIASES}");
            return broken(DisconnectReasonCode::TopicAliasInvalid, what);
        }
        if publish.topic.is_empty() {
            let topic = self.0.get(&alias);
            publish.topic =
                topic.cloned().ok_or_else(|| protocol("a topic alias that stands for nothing"))?;
            return Ok(());
        }
        // In memory of its own: it would keep the buffer alive that it was read into.
        self.0.insert(alias, publish.topic.to_string().into());
        if self.0.values().map(|topic| topic.len()).sum::<usize>() > ALIASED_BYTES {
            let what = format!("topics with an alias are longer than {ALIASED_BYTES} bytes");
            return broken(DisconnectReasonCode::QuotaExceeded, what);
        }
        Ok(())
    }
}
