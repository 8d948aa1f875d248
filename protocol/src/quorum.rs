//! Quorum systems: which sets of acceptors decide.
//!
//! ```text
//!              read quorums
//!              │    │    │
//!              ▼    ▼    ▼
//!            ┌────┬────┬────┐
//!  write  ─▶ │ a0 │ a1 │ a2 │     2 rows     each row is a write quorum
//!  quorums   ├────┼────┼────┤     3 columns  each column is a read quorum
//!         ─▶ │ a3 │ a4 │ a5 │
//!            └────┴────┴────┘
//! ```
//!
//! All that Paxos asks is that every read quorum meets every write quorum \[FP\]. In a grid each
//! row crosses each column once, while rows do not meet rows: this is where the scaling comes from.
//! \[CP §3.2\] draws the same grid transposed; this is the seed's way round, and this is the one
//! module that knows about rows and columns.
//!
//! With thresholds (`majority`, `flexible`) any set of the right size will do; they meet because
//! the two sizes add up to more than there are acceptors.
//!
//! A quorum is a set of distinct acceptors, one bit each, never a count of messages (R1): a resent
//! vote sets a bit that is already set.
//!
//! source: R1, \[CP §3.2\], \[FP\], \[seed\]

use std::fmt;

use crate::digest::Digest;
use crate::{AcceptorId, Slot};

/// The most acceptors a quorum system holds: one bit each in an [`AcceptorSet`].
pub const ACCEPTORS_MAX: u8 = 64;

/// A set of acceptors, as bits.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct AcceptorSet(u64);

/// How acceptors form read quorums (phase 1) and write quorums (phase 2).
///
/// source: R1, \[CP §3.2\], \[FP\]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct QuorumSystem(System);

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum System {
    Grid { rows: u8, columns: u8 },
    Threshold { acceptors: u8, read: u8, write: u8 },
}

/// The reason why a quorum system cannot be built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QuorumError {
    /// A side of the grid is shorter than `f + 1`: `f` losses could take out every quorum of a
    /// kind.
    GridTooSmall {
        /// Write quorums asked for.
        rows: u8,
        /// Read quorums asked for.
        columns: u8,
        /// Losses to survive.
        f: u8,
    },
    /// A threshold that cannot be reached once `f` acceptors are lost.
    NotLive {
        /// Acceptors there are.
        acceptors: u8,
        /// Size of the larger quorum.
        quorum: u8,
        /// Losses to survive.
        f: u8,
    },
    /// A write quorum of at most `f` acceptors: all that hold a chosen value could be lost.
    NotDurable {
        /// Size of a write quorum.
        write: u8,
        /// Losses to survive.
        f: u8,
    },
    /// Some read quorum misses some write quorum.
    Disjoint {
        /// Acceptors there are.
        acceptors: u8,
        /// Size of a read quorum.
        read: u8,
        /// Size of a write quorum.
        write: u8,
    },
    /// More acceptors than [`ACCEPTORS_MAX`].
    TooMany {
        /// Acceptors asked for.
        acceptors: u16,
    },
}

impl QuorumSystem {
    /// Returns the grid of `rows` write quorums by `columns` read quorums that survives the loss of
    /// any `f` acceptors.
    ///
    /// # Errors
    ///
    /// If a side is shorter than `f + 1`, or there are more than 64 acceptors.
    ///
    /// source: \[CP §3.2\], "an r × w rectangular grid, where r, w ≥ f + 1"
    pub fn grid(rows: u8, columns: u8, f: u8) -> Result<Self, QuorumError> {
        let acceptors = u16::from(rows) * u16::from(columns);
        if acceptors > u16::from(ACCEPTORS_MAX) {
            return Err(QuorumError::TooMany { acceptors });
        }
        Self(System::Grid { rows, columns }).surviving(f)
    }

    /// Returns classic MultiPaxos: any `f + 1` of `2f + 1` acceptors read and write.
    ///
    /// # Errors
    ///
    /// If there are more than 64 acceptors.
    ///
    /// source: \[CP §2.1\]
    pub fn majority(f: u8) -> Result<Self, QuorumError> {
        let acceptors = 2 * u16::from(f) + 1;
        let Some(acceptors) = u8::try_from(acceptors).ok().filter(|n| *n <= ACCEPTORS_MAX) else {
            return Err(QuorumError::TooMany { acceptors });
        };
        Self::flexible(acceptors, f + 1, f + 1, f)
    }

    /// Returns the flexible pair: any `read` of `acceptors` read, any `write` of them write.
    ///
    /// # Errors
    ///
    /// If some read quorum misses some write quorum, if `f` losses can hold the only copies of a
    /// chosen value or leave no quorum, or if there are more than 64 acceptors.
    ///
    /// source: \[FP\]
    pub fn flexible(acceptors: u8, read: u8, write: u8, f: u8) -> Result<Self, QuorumError> {
        if acceptors > ACCEPTORS_MAX {
            return Err(QuorumError::TooMany { acceptors: acceptors.into() });
        }
        if u16::from(read) + u16::from(write) <= u16::from(acceptors) {
            return Err(QuorumError::Disjoint { acceptors, read, write });
        }
        Self(System::Threshold { acceptors, read, write }).surviving(f)
    }

    /// Returns this quorum system if it survives the loss of any `f` acceptors: a quorum of each
    /// kind is left, and none of the lost were all that held a chosen value.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn surviving(self, f: u8) -> Result<Self, QuorumError> {
        match self.0 {
            System::Grid { rows, columns } if rows <= f || columns <= f => {
                Err(QuorumError::GridTooSmall { rows, columns, f })
            }
            System::Threshold { write, .. } if write <= f => {
                Err(QuorumError::NotDurable { write, f })
            }
            System::Threshold { acceptors, read, write }
                if u16::from(read.max(write)) + u16::from(f) > u16::from(acceptors) =>
            {
                Err(QuorumError::NotLive { acceptors, quorum: read.max(write), f })
            }
            System::Grid { .. } | System::Threshold { .. } => Ok(self),
        }
    }

    /// The number of acceptors, which are numbered from 0.
    #[must_use]
    pub fn acceptors_count(self) -> u8 {
        match self.0 {
            System::Grid { rows, columns } => rows * columns,
            System::Threshold { acceptors, .. } => acceptors,
        }
    }

    /// All acceptors.
    #[must_use]
    pub fn acceptors(self) -> AcceptorSet {
        AcceptorSet::first(self.acceptors_count())
    }

    /// How many more acceptors can be lost, whichever they are, if only those of `left` are there:
    /// then there is a read and a write quorum still. `None` if there is none now.
    #[must_use]
    pub fn losses_survived(self, left: AcceptorSet) -> Option<u32> {
        // What it takes to break the last quorum of each kind, and one less.
        match self.0 {
            System::Grid { rows, columns } => {
                // One of each whole row, or of each whole column: no acceptor is in two of a kind.
                let whole_rows = (0..rows).filter(|row| left.contains_all(self.row(*row)));
                let whole_columns =
                    (0..columns).filter(|column| left.contains_all(self.column(*column)));
                let whole = whole_rows.count().min(whole_columns.count());
                u32::try_from(whole).ok()?.checked_sub(1)
            }
            System::Threshold { read, write, .. } => {
                left.len().checked_sub(u32::from(read.max(write)))
            }
        }
    }

    /// Whether `votes` holds a whole read quorum: it then meets every write quorum.
    #[must_use]
    pub fn is_read_quorum(self, votes: AcceptorSet) -> bool {
        match self.0 {
            System::Grid { columns, .. } => {
                (0..columns).any(|column| votes.contains_all(self.column(column)))
            }
            System::Threshold { read, .. } => votes.len() >= u32::from(read),
        }
    }

    /// Whether `votes` holds a whole write quorum: what they voted for alike is chosen.
    #[must_use]
    pub fn is_write_quorum(self, votes: AcceptorSet) -> bool {
        match self.0 {
            System::Grid { rows, columns } => {
                let first = AcceptorSet::first(columns).0;
                (0..rows).any(|row| votes.contains_all(AcceptorSet(first << (row * columns))))
            }
            System::Threshold { write, .. } => votes.len() >= u32::from(write),
        }
    }

    /// The write quorum to ask for `slot`: among those with the fewest members in `suspects`, the
    /// `attempt`-th from the slot's own on.
    ///
    /// Write quorums take turns by slot, so that with no suspects each acceptor of a grid is asked
    /// for `1/rows` of the slots. Raising `attempt` walks through the others, so every write quorum
    /// is tried in the end whatever is suspected.
    ///
    /// source: R12, \[CP §3.2\]
    #[must_use]
    pub fn write_quorum(self, slot: Slot, attempt: u32, suspects: AcceptorSet) -> AcceptorSet {
        let quorum = match self.0 {
            System::Grid { rows, .. } => {
                let own = remainder(slot.0, rows);
                if suspects.is_empty() && attempt == 0 {
                    return self.row(own);
                }
                self.row_avoiding(own, attempt, suspects)
            }
            System::Threshold { acceptors, write, .. } => {
                let own = remainder(slot.0.wrapping_add(attempt.into()), acceptors);
                self.in_turn(own, write, suspects)
            }
        };
        debug_assert!(self.is_write_quorum(quorum), "{quorum:?} is asked, and is no write quorum");
        quorum
    }

    /// The read quorum whose `turn` it is, among those with the fewest members in `suspects`.
    ///
    /// They take turns, so that with no suspects each acceptor of a grid is asked for `1/columns`
    /// of the reads.
    ///
    /// source: R19, \[CP §3.4\]
    #[must_use]
    pub fn read_quorum(self, turn: u64, suspects: AcceptorSet) -> AcceptorSet {
        let quorum = match self.0 {
            System::Grid { columns, .. } => {
                let own = remainder(turn, columns);
                let in_turn = (0..columns).map(|i| self.column((own + i) % columns));
                let fewest = in_turn.min_by_key(|column| column.intersection(suspects).len());
                fewest.unwrap_or_default() // a grid has a column at the least
            }
            System::Threshold { acceptors, read, .. } => {
                self.in_turn(remainder(turn, acceptors), read, suspects)
            }
        };
        debug_assert!(self.is_read_quorum(quorum), "{quorum:?} is asked, and is no read quorum");
        quorum
    }

    /// So many acceptors from `own` on, those that are not suspected first.
    fn in_turn(self, own: u8, count: u8, suspects: AcceptorSet) -> AcceptorSet {
        let acceptors = self.acceptors_count();
        let turn = || (0..acceptors).map(move |i| AcceptorId((own + i) % acceptors));
        let healthy = turn().filter(|a| !suspects.contains(*a));
        let others = turn().filter(|a| suspects.contains(*a));
        healthy.chain(others).take(count.into()).collect()
    }

    /// The identity of this quorum system at `f`, for the cluster's table: nodes that were
    /// configured apart never act together.
    ///
    /// source: R3
    #[must_use]
    pub fn digest(self, f: u8) -> u64 {
        let (kind, a, b, c) = match self.0 {
            System::Grid { rows, columns } => (1, rows, columns, 0),
            System::Threshold { acceptors, read, write } => (2, acceptors, read, write),
        };
        let words = [kind, a, b, c, f].map(u64::from);
        words.into_iter().fold(Digest::new("loggos quorum system"), Digest::word).finish()
    }

    /// Rows ordered by (suspects in it, distance from `own`), the `attempt`-th of them, round and
    /// round: the first with the fewest suspects is used at once.
    fn row_avoiding(self, own: u8, attempt: u32, suspects: AcceptorSet) -> AcceptorSet {
        let System::Grid { rows, .. } = self.0 else { unreachable!("only grids have rows") };
        let mut order = [(0, 0); ACCEPTORS_MAX as usize];
        let order = &mut order[..usize::from(rows)];
        for (distance, place) in (0..rows).zip(order.iter_mut()) {
            let row = (own + distance) % rows;
            *place = (self.row(row).intersection(suspects).len(), row);
        }
        order.sort_by_key(|(suspects, _)| *suspects); // stable: distance decides between equals
        let (_, row) = order[usize::from(remainder(attempt.into(), rows))];
        self.row(row)
    }

    fn row(self, row: u8) -> AcceptorSet {
        let System::Grid { rows, columns } = self.0 else { unreachable!("only grids have rows") };
        debug_assert!(row < rows, "row {row} of {rows}");
        AcceptorSet(AcceptorSet::first(columns).0 << (row * columns))
    }

    fn column(self, column: u8) -> AcceptorSet {
        let System::Grid { rows, columns } = self.0 else {
            unreachable!("only grids have columns")
        };
        debug_assert!(column < columns, "column {column} of {columns}");
        (0..rows).map(|row| AcceptorId(row * columns + column)).collect()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a remainder of a u8 fits a u8")]
fn remainder(n: u64, divisor: u8) -> u8 {
    (n % u64::from(divisor)) as u8
}

impl AcceptorSet {
    /// The set of the acceptors below `count`.
    fn first(count: u8) -> Self {
        assert!((1..=ACCEPTORS_MAX).contains(&count), "{count} acceptors");
        Self(u64::MAX >> (ACCEPTORS_MAX - count))
    }

    /// Adds `acceptor`; returns whether it is new.
    pub fn insert(&mut self, acceptor: AcceptorId) -> bool {
        assert!(acceptor.0 < ACCEPTORS_MAX, "{acceptor:?} is outside any quorum system");
        let before = self.0;
        self.0 |= 1 << acceptor.0;
        self.0 != before
    }

    /// Takes `acceptor` out; returns whether it was in.
    pub fn remove(&mut self, acceptor: AcceptorId) -> bool {
        let was_in = self.contains(acceptor);
        if was_in {
            self.0 &= !(1 << acceptor.0);
        }
        was_in
    }

    /// Whether `acceptor` is in.
    #[must_use]
    pub fn contains(self, acceptor: AcceptorId) -> bool {
        acceptor.0 < ACCEPTORS_MAX && self.0 >> acceptor.0 & 1 == 1
    }

    /// Whether all of `other` are in.
    #[must_use]
    pub fn contains_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The acceptors that are in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The acceptors that are in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The acceptors of this set that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The number of distinct acceptors in it.
    #[must_use]
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether none is in.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// A bit for each acceptor, that of acceptor 0 the lowest.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The set of which these are the [`bits`](Self::bits).
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The acceptors, smallest first.
    pub fn iter(self) -> impl Iterator<Item = AcceptorId> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let bit = u8::try_from(rest.trailing_zeros()).ok().filter(|b| *b < ACCEPTORS_MAX)?;
            rest &= rest - 1;
            Some(AcceptorId(bit))
        })
    }
}

impl FromIterator<AcceptorId> for AcceptorSet {
    fn from_iter<I: IntoIterator<Item = AcceptorId>>(acceptors: I) -> Self {
        let mut set = Self::default();
        for acceptor in acceptors {
            assert!(set.insert(acceptor), "{acceptor:?} is listed twice");
        }
        set
    }
}

impl fmt::Debug for AcceptorSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|a| a.0)).finish()
    }
}

impl fmt::Display for QuorumSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            System::Grid { rows, columns } => write!(f, "{rows} × {columns} grid"),
            System::Threshold { acceptors, read, write } => {
                write!(f, "{acceptors} acceptors, any {read} read, any {write} write")
            }
        }
    }
}

impl fmt::Display for QuorumError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::GridTooSmall { rows, columns, f } => write!(
                out,
                "a {rows} × {columns} grid cannot survive the loss of {f}: both sides need at \
                 least f + 1 = {}",
                u16::from(f) + 1
            ),
            Self::NotLive { acceptors, quorum, f } => write!(
                out,
                "with {f} of {acceptors} acceptors lost no quorum of {quorum} is left: at least \
                 {} acceptors are needed",
                u16::from(quorum) + u16::from(f)
            ),
            Self::NotDurable { write, f } => write!(
                out,
                "write quorums of {write} can be lost whole with f = {f}: at least {} are needed",
                u16::from(f) + 1
            ),
            Self::Disjoint { acceptors, read, write } => write!(
                out,
                "read quorums of {read} can miss write quorums of {write} among {acceptors} \
                 acceptors: the two sizes must add up to more than {acceptors}"
            ),
            Self::TooMany { acceptors } => {
                write!(out, "{acceptors} acceptors are more than {ACCEPTORS_MAX}")
            }
        }
    }
}

impl std::error::Error for QuorumError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn grids() -> impl Iterator<Item = (u8, u8, QuorumSystem)> {
        (1..=64u8)
            .flat_map(|r| (1..=64 / r).map(move |c| (r, c)))
            .map(|(r, c)| (r, c, QuorumSystem::grid(r, c, 0).unwrap()))
    }

    /// The whole of safety in one line, for every grid there can be.
    #[test]
    fn every_row_meets_every_column() {
        for (rows, columns, grid) in grids() {
            for row in 0..rows {
                for column in 0..columns {
                    let met = grid.row(row).intersection(grid.column(column));
                    assert_eq!(met.len(), 1, "{grid}: row {row}, column {column}");
                }
            }
        }
    }

    /// Any two sets that pass as a read and as a write quorum meet, for every system of up to
    /// seven acceptors and every pair of sets.
    #[test]
    fn every_read_quorum_meets_every_write_quorum() {
        let thresholds = (1..=7u8).flat_map(|n| {
            (1..=n).flat_map(move |r| {
                (1..=n).filter_map(move |w| QuorumSystem::flexible(n, r, w, 0).ok())
            })
        });
        let small = grids().map(|(_, _, g)| g).filter(|g| g.acceptors_count() <= 7);
        for system in thresholds.chain(small) {
            let sets = || (0u64..1 << system.acceptors_count()).map(AcceptorSet);
            for read in sets().filter(|s| system.is_read_quorum(*s)) {
                for write in sets().filter(|s| system.is_write_quorum(*s)) {
                    assert!(!read.intersection(write).is_empty(), "{system}: {read:?} {write:?}");
                }
            }
        }
    }

    #[test]
    fn f_losses_leave_a_quorum_of_each_kind_and_never_hold_a_whole_write_quorum() {
        for f in 0..=2u8 {
            let n = 2 * f + 1;
            for system in [
                QuorumSystem::grid(f + 1, f + 1, f).unwrap(),
                QuorumSystem::majority(f).unwrap(),
                QuorumSystem::flexible(n + 1, f + 1, n + 1 - f, f).unwrap(),
            ] {
                let all = system.acceptors();
                let lost = (0u64..1 << system.acceptors_count()).map(AcceptorSet);
                for lost in lost.filter(|s| s.len() == u32::from(f)) {
                    assert!(system.is_read_quorum(all.without(lost)), "{system}, lost {lost:?}");
                    assert!(system.is_write_quorum(all.without(lost)), "{system}, lost {lost:?}");
                    assert!(!system.is_write_quorum(lost), "{system}, lost {lost:?}");
                }
            }
        }
    }

    /// Against every set of losses, for every small system and every set that is left.
    #[test]
    fn as_many_losses_are_survived_as_leave_a_quorum_of_each_kind() {
        let systems = [
            QuorumSystem::grid(2, 2, 1).unwrap(),
            QuorumSystem::grid(3, 2, 1).unwrap(),
            QuorumSystem::grid(2, 3, 1).unwrap(),
            QuorumSystem::majority(2).unwrap(),
            QuorumSystem::flexible(6, 4, 3, 1).unwrap(),
        ];
        for system in systems {
            let sets = || (0u64..1 << system.acceptors_count()).map(AcceptorSet);
            let lives = |left| system.is_read_quorum(left) && system.is_write_quorum(left);
            for left in sets() {
                let breaks = sets().filter(|lost| left.contains_all(*lost));
                let breaks = breaks.filter(|lost| !lives(left.without(*lost)));
                let survived = breaks.map(AcceptorSet::len).min().and_then(|it| it.checked_sub(1));
                assert_eq!(system.losses_survived(left), survived, "{system}, left {left:?}");
            }
        }
    }

    /// R1: the seed counts two P1b of a 2 × 2 grid as a read quorum, whichever acceptors sent them.
    #[test]
    fn r01_a_row_is_no_read_quorum_and_a_repeated_vote_is_no_second_one() {
        let grid = QuorumSystem::grid(2, 2, 1).unwrap();
        let row: AcceptorSet = [AcceptorId(0), AcceptorId(1)].into_iter().collect();
        let column: AcceptorSet = [AcceptorId(0), AcceptorId(2)].into_iter().collect();
        assert!(!grid.is_read_quorum(row) && grid.is_write_quorum(row));
        assert!(grid.is_read_quorum(column) && !grid.is_write_quorum(column));
        let mut votes = AcceptorSet::default();
        assert!(votes.insert(AcceptorId(3)));
        assert!(!votes.insert(AcceptorId(3)));
        assert_eq!(votes.len(), 1);
    }

    #[test]
    fn an_acceptor_is_asked_for_one_in_rows_slots() {
        for (rows, columns, grid) in grids() {
            let mut asked = [0; 64];
            for slot in (0..u64::from(rows) * 3).map(Slot) {
                let quorum = grid.write_quorum(slot, 0, AcceptorSet::default());
                assert_eq!(quorum.len(), u32::from(columns), "{grid}");
                assert!(grid.is_write_quorum(quorum), "{grid}");
                quorum.iter().for_each(|a| asked[usize::from(a.0)] += 1);
            }
            let asked = &asked[..usize::from(grid.acceptors_count())];
            assert!(asked.iter().all(|n| *n == 3), "{grid}: {asked:?}");
        }
    }

    #[test]
    fn attempts_walk_through_every_write_quorum_and_suspects_come_last() {
        for system in [
            QuorumSystem::grid(3, 2, 1).unwrap(),
            QuorumSystem::majority(2).unwrap(),
            QuorumSystem::flexible(6, 4, 3, 2).unwrap(),
        ] {
            for suspect in system.acceptors().iter() {
                let suspects = [suspect].into_iter().collect();
                for slot in (0..7).map(Slot) {
                    let mut asked = AcceptorSet::default();
                    for attempt in 0..u32::from(system.acceptors_count()) {
                        let quorum = system.write_quorum(slot, attempt, suspects);
                        assert!(system.is_write_quorum(quorum), "{system}");
                        assert!(attempt > 0 || !quorum.contains(suspect), "{system}");
                        asked = asked.union(quorum);
                    }
                    assert!(asked.contains_all(system.acceptors().without(suspects)), "{system}");
                }
            }
        }
    }

    #[test]
    fn contradictory_systems_are_refused() {
        assert_eq!(
            QuorumSystem::grid(1, 3, 1),
            Err(QuorumError::GridTooSmall { rows: 1, columns: 3, f: 1 })
        );
        assert_eq!(QuorumSystem::grid(13, 5, 1), Err(QuorumError::TooMany { acceptors: 65 }));
        assert_eq!(
            QuorumSystem::flexible(4, 2, 2, 1),
            Err(QuorumError::Disjoint { acceptors: 4, read: 2, write: 2 })
        );
        assert_eq!(
            QuorumSystem::flexible(4, 4, 1, 1),
            Err(QuorumError::NotDurable { write: 1, f: 1 })
        );
        assert_eq!(
            QuorumSystem::flexible(4, 4, 2, 1),
            Err(QuorumError::NotLive { acceptors: 4, quorum: 4, f: 1 })
        );
        assert_eq!(QuorumSystem::majority(32), Err(QuorumError::TooMany { acceptors: 65 }));
        assert_eq!(QuorumSystem::majority(255), Err(QuorumError::TooMany { acceptors: 511 }));
    }

    #[test]
    fn systems_that_differ_digest_apart() {
        let grid = QuorumSystem::grid(2, 3, 1).unwrap();
        let digests = [
            grid.digest(1),
            grid.digest(0),
            QuorumSystem::grid(3, 2, 1).unwrap().digest(1),
            QuorumSystem::majority(1).unwrap().digest(1),
            QuorumSystem::flexible(3, 2, 2, 0).unwrap().digest(0),
        ];
        for (i, a) in digests.iter().enumerate() {
            assert!(digests[..i].iter().all(|b| a != b), "{digests:x?}");
        }
    }
}
