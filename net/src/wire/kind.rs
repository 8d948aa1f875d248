//! The kinds of frames, by number: one for each message of each role.

use loggos_protocol::{
    AcceptorId, Envelope, FormationId, GatewayId, ProposerId, ProxyLeaderId, ReplicaId, To,
    ToAcceptor, ToGateway, ToProposer, ToProxyLeader, ToReplica,
};

use super::bodies::Body;
use super::cursor::Cursor;
use super::encode::frame;
use super::headers::Route;
use super::layout::{Laid, put};
use super::{Message, WireError, client, handshake};
use crate::Outgoing;

/// Makes of the table below: [`Kind`], and the way of a message into a frame and out of one. A
/// message that is not in the table does not compile.
macro_rules! kinds {
    (
        connections { $($kind:ident = $number:literal: $take:path,)* }
        $($role:ident: $id:ident, $messages:ident {
            $($role_kind:ident = $role_number:literal: $message:ident,)*
        })*
    ) => {
        /// The kind of a frame. The upper half of its number names the receiver: 0 the other end of
        /// the connection, 1 a gateway, 2 a proposer, 3 a proxy leader, 4 an acceptor, 5 a replica.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[repr(u8)]
        pub enum Kind {
            $(
                #[doc = concat!("See [`Message::", stringify!($kind), "`](super::Message::", stringify!($kind), ").")]
                $kind = $number,
            )*
            $($(
                #[doc = concat!("[`", stringify!($messages), "::", stringify!($message), "`].")]
                $role_kind = $role_number,
            )*)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind,)* $($(Self::$role_kind,)*)*];

            /// The kind of that number.
            #[must_use]
            #[inline]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$kind),)*
                    $($($role_number => Some(Self::$role_kind),)*)*
                    _ => None,
                }
            }

            /// Its name, as it stands here.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($kind),)*
                    $($(Self::$role_kind => stringify!($role_kind),)*)*
                }
            }
        }

        /// Appends a role-to-role message as one frame.
        #[inline]
        pub fn encode(envelope: &Envelope, out: &mut Outgoing) {
            match &envelope.to {
                $($(To::$role(id, $messages::$message(message)) => {
                    route(Kind::$role_kind, envelope.formation, id.0, message, out);
                })*)*
            }
        }

        /// Reads what a frame of `kind` says.
        #[inline]
        pub(super) fn decode(kind: Kind, from: &mut Cursor<'_>) -> Result<Message, WireError> {
            match kind {
                $(Kind::$kind => $take(from),)*
                $($(Kind::$role_kind => {
                    let (formation, id) = from.route()?;
                    let to = To::$role($id(id), $messages::$message(Body::take(from)?));
                    Ok(Message::Envelope(Envelope { formation, to }))
                })*)*
            }
        }
    };
}

kinds! {
    connections {
        Hello = 0x01: handshake::take_hello,
        Welcome = 0x02: handshake::take_welcome,
        Refusal = 0x03: handshake::take_refusal,
        Commands = 0x04: client::take_commands,
        Replies = 0x05: client::take_replies,
        StatusRequest = 0x06: client::take_status_request,
        Status = 0x07: client::take_status,
        Log = 0x08: handshake::take_log,
        Skip = 0x09: client::take_skip,
        Failed = 0x0A: client::take_failed,
        Session = 0x0B: client::take_session,
        Reads = 0x0C: client::take_reads,
    }
    Gateway: GatewayId, ToGateway {
        GatewayHeartbeat = 0x10: Heartbeat,
        GatewayNotLeader = 0x11: NotLeader,
        GatewayResults = 0x12: Results,
        GatewayNotExecuted = 0x13: NotExecuted,
        GatewayHalted = 0x14: Halted,
        GatewayPreReadAck = 0x15: PreReadAck,
        GatewayReadResults = 0x16: ReadResults,
    }
    Proposer: ProposerId, ToProposer {
        ProposerProbeAck = 0x20: ProbeAck,
        ProposerFormed = 0x21: Formed,
        ProposerPreVoteAck = 0x22: PreVoteAck,
        ProposerP1b = 0x23: P1b,
        ProposerNack = 0x24: Nack,
        ProposerHeartbeat = 0x25: Heartbeat,
        ProposerHeartbeatAck = 0x26: HeartbeatAck,
        ProposerPropose = 0x27: Propose,
        ProposerTruncated = 0x28: Truncated,
        ProposerExecuted = 0x29: Executed,
        ProposerNeed = 0x2A: Need,
        ProposerUnserved = 0x2B: Unserved,
        ProposerHalted = 0x2C: Halted,
        ProposerSkip = 0x2D: Skip,
        ProposerFillTo = 0x2E: FillTo,
    }
    ProxyLeader: ProxyLeaderId, ToProxyLeader {
        ProxyLeaderHeartbeat = 0x30: Heartbeat,
        ProxyLeaderP2a = 0x31: P2a,
        ProxyLeaderP2b = 0x32: P2b,
        ProxyLeaderNack = 0x33: Nack,
        ProxyLeaderTruncated = 0x34: Truncated,
    }
    Acceptor: AcceptorId, ToAcceptor {
        AcceptorProbe = 0x40: Probe,
        AcceptorForm = 0x41: Form,
        AcceptorPreVote = 0x42: PreVote,
        AcceptorP1a = 0x43: P1a,
        AcceptorP2a = 0x44: P2a,
        AcceptorHeartbeat = 0x45: Heartbeat,
        AcceptorExecuted = 0x46: Executed,
        AcceptorReplay = 0x47: Replay,
        AcceptorUnserved = 0x48: Unserved,
        AcceptorPreRead = 0x49: PreRead,
    }
    Replica: ReplicaId, ToReplica {
        ReplicaProbe = 0x50: Probe,
        ReplicaHeartbeat = 0x51: Heartbeat,
        ReplicaChosen = 0x52: Chosen,
        ReplicaIdentify = 0x53: Identify,
        ReplicaFetch = 0x54: Fetch,
        ReplicaFetched = 0x55: Fetched,
        ReplicaAsk = 0x56: Ask,
        ReplicaTruncated = 0x57: Truncated,
        ReplicaReplayed = 0x58: Replayed,
        ReplicaFetchPart = 0x59: FetchPart,
        ReplicaFetchedPart = 0x5A: FetchedPart,
        ReplicaRead = 0x5B: Read,
    }
}

impl Kind {
    /// Its number in a frame's head.
    #[must_use]
    #[inline]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

#[inline]
fn route<M: Body>(
    kind: Kind,
    formation: Option<FormationId>,
    to: u8,
    message: &M,
    out: &mut Outgoing,
) {
    let header = |out: &mut Outgoing| {
        put(&Route { formation: formation.lay_out(), to }, out);
        message.put(out);
    };
    frame(kind, out, header, |out| message.put_payloads(out));
}

impl Cursor<'_> {
    /// Takes what every message between roles begins with.
    #[inline]
    fn route(&mut self) -> Result<(Option<FormationId>, u8), WireError> {
        let route: &Route = self.header()?;
        Ok((Laid::read(&route.formation)?, route.to))
    }
}
