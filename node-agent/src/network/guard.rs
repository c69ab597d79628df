//! The guard: while a container is being rebuilt, no IP packet enters or leaves it.
//!
//! ```text
//! table inet godwit-guard {
//!     chain in  { type filter hook prerouting priority -400; policy drop; (neighbours, criu) accept }
//!     chain out { type filter hook output priority -400; policy drop; (neighbours, criu) accept }
//! }
//! ```
//!
//! In the container's namespace, while its sockets are not there yet, the kernel would answer
//! every segment of a living connection with a reset, and what a half-built socket sends would
//! confuse its peer. ARP passes, and so do the solicitations and advertisements of IPv6:
//! whoever asks for the address while it is guarded is told, and does not wait a second to
//! ask again. Before connection tracking (-200), which would
//! otherwise remember what was dropped. Traffic over `lo` is stopped too: a container's
//! connections to itself are rebuilt one end after the other. What criu sends passes, known by its
//! mark: it rebuilds a connection that one side has closed by sending it the FIN again.

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, Immediate, InetHookNumber,
    Meta, MetaKey, NfTablesMessage, Operator, Payload, Register, RuleAttribute, RuleMessage,
    TableAttribute, TableMessage, Verdict, VerdictAttribute,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use nix::libc;
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage};

use super::exchange::{acknowledged, encode};

/// Nobody else's: it is made and removed as a whole.
const TABLE: &str = "godwit-guard";
const PRIORITY: i32 = -400;
/// The protocol of neighbours, and the messages by which they ask and answer (RFC 4861).
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// `SOCCR_MARK`, with which criu marks what it sends; who sets marks has CAP_NET_ADMIN.
const CRIU: u32 = 0xc114;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`: offsets count from there.
const TRANSPORT: u32 = 2;

/// The batch that raises the guard; one that stands has its rules twice, which
/// changes nothing.
pub(super) fn raise() -> Vec<u8> {
    batch([
        (NfTablesMessage::NewTable(table()), NLM_F_CREATE),
        (NfTablesMessage::NewChain(chain("in", InetHookNumber::PreRouting)), NLM_F_CREATE),
        (NfTablesMessage::NewChain(chain("out", InetHookNumber::LocalOut)), NLM_F_CREATE),
        (NfTablesMessage::NewRule(neighbours("in")), NLM_F_CREATE | NLM_F_APPEND),
        (NfTablesMessage::NewRule(neighbours("out")), NLM_F_CREATE | NLM_F_APPEND),
        (NfTablesMessage::NewRule(criu("in")), NLM_F_CREATE | NLM_F_APPEND),
        (NfTablesMessage::NewRule(criu("out")), NLM_F_CREATE | NLM_F_APPEND),
    ])
}

/// The batch that drops the guard; without one it changes nothing.
///
/// Made before it is removed: a removal that fails costs a grace period, 10 ms.
pub(super) fn lower() -> Vec<u8> {
    batch([
        (NfTablesMessage::NewTable(table()), NLM_F_CREATE),
        (NfTablesMessage::DeleteTable(table()), 0),
    ])
}

fn table() -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(TABLE.into())] }
}

fn chain(name: &str, hook: InetHookNumber) -> ChainMessage {
    let hook = vec![Hook::Number(hook.into()), Hook::Priority(PRIORITY.cast_unsigned())];
    ChainMessage {
        attributes: vec![
            ChainAttribute::Table(TABLE.into()),
            ChainAttribute::Name(name.into()),
            ChainAttribute::Hook(hook),
            ChainAttribute::Type("filter".into()),
            ChainAttribute::Policy(libc::NF_DROP.cast_unsigned()),
        ],
    }
}

fn is(operator: Operator, value: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}

fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(key)])
}

/// What fits all of them passes that chain.
fn pass<const N: usize>(chain: &str, expressions: [Expressions; N]) -> RuleMessage {
    let verdict = VerdictAttribute::Code(Verdict::Other(libc::NF_ACCEPT.cast_unsigned()));
    let accept = Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![verdict])),
    ]);
    let expressions = expressions.into_iter().chain([accept]).map(Into::into);
    RuleMessage {
        attributes: vec![
            RuleAttribute::Table(TABLE.into()),
            RuleAttribute::Chain(chain.into()),
            RuleAttribute::Expressions(expressions.collect()),
        ],
    }
}

/// Neighbours' questions and answers.
fn neighbours(chain: &str) -> RuleMessage {
    let message_type = Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(TRANSPORT),
        Payload::Offset(0),
        Payload::Len(1),
    ]);
    let expressions = [
        meta(MetaKey::L4Proto),
        is(Operator::Equal, vec![ICMPV6]),
        message_type,
        is(Operator::GreatherThanEqual, vec![SOLICITATION]),
        is(Operator::LessThanEqual, vec![ADVERTISEMENT]),
    ];
    pass(chain, expressions)
}

/// What criu sends.
fn criu(chain: &str) -> RuleMessage {
    let mark = is(Operator::Equal, CRIU.to_ne_bytes().to_vec());
    pass(chain, [meta(MetaKey::Mark), mark])
}

/// All of them or none: nf_tables takes changes as a transaction.
fn batch<const N: usize>(changes: [(NfTablesMessage, u16); N]) -> Vec<u8> {
    let changes = changes
        .map(|(change, flags)| acknowledged(message(NetfilterProtoFamily::Inet, 0, change), flags));
    let begin = std::iter::once(bracket(ControlMessage::BatchBegin));
    let end = std::iter::once(bracket(ControlMessage::BatchEnd));
    encode(begin.chain(changes).chain(end))
}

/// A batch's first or last message: it carries the subsystem that the batch is for.
fn bracket(control: ControlMessage) -> NetlinkMessage<NetfilterMessage> {
    let subsystem = libc::NFNL_SUBSYS_NFTABLES as u16;
    let mut bracket =
        NetlinkMessage::from(message(NetfilterProtoFamily::Unspec, subsystem, control));
    bracket.header.flags = NLM_F_REQUEST;
    bracket
}

fn message(
    family: NetfilterProtoFamily,
    resource: u16,
    inner: impl Into<NetfilterMessageInner>,
) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, resource), inner)
}
