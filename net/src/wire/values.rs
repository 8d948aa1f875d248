//! Values of the protocol that lie in a header as numbers: ids, flags, and one of several.

use loggos_protocol::{
    AcceptorId, AcceptorSet, DirectoryId, FormationId, GatewayId, Incarnation, Listener,
    ProposerId, ProxyLeaderId, Rememberer, ReplicaId, Slot, Stage, Time, Watcher, Watermark,
};
use rkyv::rend::unaligned::{u32_ule, u64_ule};

use super::WireError;
use super::headers::Who;
use super::layout::Laid;

macro_rules! ids {
    ($layout:ty: $($id:ident),*) => {$(
        impl Laid for $id {
            type Layout = $layout;

            #[inline]
            fn lay_out(&self) -> $layout {
                self.0.into()
            }

            #[inline]
            fn read(layout: &$layout) -> Result<Self, WireError> {
                Ok(Self((*layout).into()))
            }
        }
    )*};
}

ids!(u8: AcceptorId, GatewayId, ProposerId, ProxyLeaderId, ReplicaId);
ids!(u64_ule: DirectoryId, FormationId, Incarnation, Slot, Time, Watermark);

macro_rules! numbers {
    ($($number:ty as $layout:ty),*) => {$(
        impl Laid for $number {
            type Layout = $layout;

            #[inline]
            fn lay_out(&self) -> $layout {
                (*self).into()
            }

            #[inline]
            fn read(layout: &$layout) -> Result<Self, WireError> {
                Ok((*layout).into())
            }
        }
    )*};
}

numbers!(u32 as u32_ule, u64 as u64_ule);

impl Laid for AcceptorSet {
    type Layout = u64_ule;

    fn lay_out(&self) -> u64_ule {
        self.bits().into()
    }

    fn read(layout: &u64_ule) -> Result<Self, WireError> {
        Ok(Self::from_bits((*layout).into()))
    }
}

impl Laid for bool {
    type Layout = u8;

    #[inline]
    fn lay_out(&self) -> u8 {
        u8::from(*self)
    }

    #[inline]
    fn read(layout: &u8) -> Result<Self, WireError> {
        match layout {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Discriminant { of: "flag", value: *layout }),
        }
    }
}

impl Laid for Stage {
    type Layout = u8;

    fn lay_out(&self) -> u8 {
        match self {
            Self::Campaigning => 1,
            Self::Leading => 2,
            Self::Leaving => 3,
            Self::Waiting => 4,
            Self::Following => 5,
        }
    }

    fn read(layout: &u8) -> Result<Self, WireError> {
        match layout {
            1 => Ok(Self::Campaigning),
            2 => Ok(Self::Leading),
            3 => Ok(Self::Leaving),
            4 => Ok(Self::Waiting),
            5 => Ok(Self::Following),
            _ => Err(WireError::Discriminant { of: "stage", value: *layout }),
        }
    }
}

/// The kinds of roles, by the upper half of a [`Kind`](super::Kind)'s number.
const GATEWAY: u8 = 1;
const PROPOSER: u8 = 2;
const PROXY_LEADER: u8 = 3;
const ACCEPTOR: u8 = 4;
const REPLICA: u8 = 5;

impl Laid for Rememberer {
    type Layout = Who;

    fn lay_out(&self) -> Who {
        match self {
            Self::Acceptor(id) => Who { kind: ACCEPTOR, id: id.0 },
            Self::Replica(id) => Who { kind: REPLICA, id: id.0 },
        }
    }

    fn read(layout: &Who) -> Result<Self, WireError> {
        match layout.kind {
            ACCEPTOR => Ok(Self::Acceptor(AcceptorId(layout.id))),
            REPLICA => Ok(Self::Replica(ReplicaId(layout.id))),
            value => Err(WireError::Discriminant { of: "who answers a probe", value }),
        }
    }
}

impl Laid for Listener {
    type Layout = Who;

    fn lay_out(&self) -> Who {
        match self {
            Self::Acceptor(id) => Who { kind: ACCEPTOR, id: id.0 },
            Self::ProxyLeader(id) => Who { kind: PROXY_LEADER, id: id.0 },
            Self::Gateway(id) => Who { kind: GATEWAY, id: id.0 },
        }
    }

    fn read(layout: &Who) -> Result<Self, WireError> {
        match layout.kind {
            ACCEPTOR => Ok(Self::Acceptor(AcceptorId(layout.id))),
            PROXY_LEADER => Ok(Self::ProxyLeader(ProxyLeaderId(layout.id))),
            GATEWAY => Ok(Self::Gateway(GatewayId(layout.id))),
            value => Err(WireError::Discriminant { of: "who heard a heartbeat", value }),
        }
    }
}

impl Laid for Watcher {
    type Layout = Who;

    fn lay_out(&self) -> Who {
        match self {
            Self::Proposer(id) => Who { kind: PROPOSER, id: id.0 },
            Self::Acceptor(id) => Who { kind: ACCEPTOR, id: id.0 },
        }
    }

    fn read(layout: &Who) -> Result<Self, WireError> {
        match layout.kind {
            PROPOSER => Ok(Self::Proposer(ProposerId(layout.id))),
            ACCEPTOR => Ok(Self::Acceptor(AcceptorId(layout.id))),
            value => Err(WireError::Discriminant { of: "who watches a replica", value }),
        }
    }
}
