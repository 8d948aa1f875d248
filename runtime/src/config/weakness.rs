//! What a cluster does not survive, though it is well configured.

use std::fmt;

use loggos_protocol::{AcceptorId, AcceptorSet, QuorumSystem};

use super::Config;

/// The most sets of lost acceptors to try: a few seconds' worth. It is enough for all grids up to f = 6 and
/// majorities up to f = 12.
const SETS_MAX: u64 = 1 << 24;

/// Why a cluster may stop although no more was lost than it is made for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Weakness {
    /// The slowest replica holds credit, and f + 1 must be there (R29).
    FewReplicas {
        /// Replicas there are.
        replicas: u8,
        /// 2f + 1.
        wanted: u8,
    },
    /// `f` losses can leave clients without any gateway.
    FewGateways {
        /// Gateways there are.
        gateways: u8,
        /// f + 1.
        wanted: u8,
    },
    /// All roles live in this process.
    OneProcess,
}

/// What trying all losses of `f` acceptors has shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Losses {
    /// Each leaves a read and a write quorum.
    Survived {
        /// How many were tried.
        sets: u64,
    },
    /// There are too many to try; that the cluster survives them follows from the sizes of its quorums.
    TooMany {
        /// How many.
        sets: u64,
    },
    /// Without these no read or no write quorum is left. Only a bug can bring this about: such quorums are
    /// refused.
    Fatal {
        /// The lost acceptors.
        lost: Vec<AcceptorId>,
    },
}

impl Config {
    /// Returns all that speaks against this cluster without being a mistake.
    #[must_use]
    pub fn weaknesses(&self) -> Vec<Weakness> {
        let (f, mut found) = (self.cluster.f, Vec::new());
        let (replicas, gateways) = (self.cluster.replicas, self.cluster.gateways);
        let wanted = f.saturating_mul(2).saturating_add(1);
        if replicas < wanted {
            found.push(Weakness::FewReplicas { replicas, wanted });
        }
        let wanted = f.saturating_add(1);
        if gateways < wanted {
            found.push(Weakness::FewGateways { gateways, wanted });
        }
        found.push(Weakness::OneProcess);
        found
    }

    /// Tries every loss of f acceptors: whether a read and a write quorum is left.
    ///
    /// May take seconds.
    #[must_use]
    pub fn try_losses(&self) -> Losses {
        let quorums = self.cluster.quorums;
        let sets = choose(quorums.acceptors_count(), self.cluster.f);
        if sets > SETS_MAX {
            return Losses::TooMany { sets };
        }
        let mut tried = 0;
        match fatal_loss(quorums, quorums.acceptors(), (0, self.cluster.f), &mut tried) {
            None => Losses::Survived { sets: tried },
            Some(left) => {
                Losses::Fatal { lost: quorums.acceptors().without(left).iter().collect() }
            }
        }
    }
}

/// Takes `more` acceptors from `first` on out of `left`, in every way; returns what is left where that is no
/// read or no write quorum.
fn fatal_loss(
    quorums: QuorumSystem,
    left: AcceptorSet,
    (first, more): (u8, u8),
    tried: &mut u64,
) -> Option<AcceptorSet> {
    if more == 0 {
        *tried += 1;
        let is_live = quorums.is_read_quorum(left) && quorums.is_write_quorum(left);
        return (!is_live).then_some(left);
    }
    (first..quorums.acceptors_count()).find_map(|lost| {
        let mut left = left;
        left.remove(AcceptorId(lost));
        fatal_loss(quorums, left, (lost + 1, more - 1), tried)
    })
}

/// How many sets of `k` there are among `n`, at most 64.
fn choose(n: u8, k: u8) -> u64 {
    let (n, k) = (u128::from(n), u128::from(k));
    // Exact at every step: it is the number of sets of i + 1 among n.
    let sets = (0..k).fold(1_u128, |sets, i| sets * n.saturating_sub(i) / (i + 1));
    u64::try_from(sets).unwrap_or(u64::MAX)
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FewReplicas { replicas, wanted } => write!(
                f,
                "{replicas} replicas are fewer than 2f + 1 = {wanted}: the cluster halts at its bound \
                 when one replica is lost"
            ),
            Self::FewGateways { gateways, wanted } => write!(
                f,
                "{gateways} {} fewer than f + 1 = {wanted}: the loss of f can leave clients without any",
                if *gateways == 1 { "gateway is" } else { "gateways are" }
            ),
            Self::OneProcess => f.write_str(
                "all roles live in one process: the cluster survives the loss of roles, but no loss \
                 of that process",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::read;

    fn config(text: &str) -> Config {
        read(text, &[0, 1]).unwrap()
    }

    #[test]
    fn the_default_has_one_gateway_in_one_process() {
        let few = Weakness::FewGateways { gateways: 1, wanted: 2 };
        assert_eq!(config("").weaknesses(), [few, Weakness::OneProcess]);
        let two = config("[cluster]\ngateways = 2");
        assert_eq!(two.weaknesses(), [Weakness::OneProcess]);
    }

    #[test]
    fn few_replicas_are_a_weakness() {
        let weaknesses = config("[cluster]\ngateways = 2\nreplicas = 2").weaknesses();
        assert_eq!(weaknesses[0], Weakness::FewReplicas { replicas: 2, wanted: 3 });
        assert!(weaknesses[0].to_string().contains("halts at its bound"), "{}", weaknesses[0]);
    }

    #[test]
    fn every_loss_of_f_acceptors_is_tried_and_survived() {
        for (text, sets) in [
            ("", 4),
            ("f = 0", 1),
            ("f = 2", 36),
            ("f = 2\nquorums = { grid = { rows = 3, columns = 4 } }", 66),
            ("f = 3\nquorums = \"majority\"", 35),
            ("quorums = { flexible = { acceptors = 4, read = 3, write = 2 } }", 4),
            ("f = 4", 12_650),
        ] {
            let config = config(&format!("[cluster]\n{text}"));
            assert_eq!(config.try_losses(), Losses::Survived { sets }, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_tried_in_time_is_not() {
        let config = config("[cluster]\nf = 31\nquorums = \"majority\"");
        assert_eq!(config.try_losses(), Losses::TooMany { sets: 916_312_070_471_295_267 });
    }

    /// A loss of one more than f acceptors is what takes a grid's last quorum of a kind.
    #[test]
    fn a_fatal_loss_is_found() {
        let grid = QuorumSystem::grid(2, 2, 1).unwrap();
        let left = fatal_loss(grid, grid.acceptors(), (0, 2), &mut 0).unwrap();
        assert_eq!(left.len(), 2);
        assert!(!(grid.is_read_quorum(left) && grid.is_write_quorum(left)), "{left:?}");
    }
}
