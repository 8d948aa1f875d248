//! The headers: one layout for each kind of message, and for the parts they share.
//!
//! The header of a message between roles is [`Route`], then the layout named after the message,
//! then entries, as many as that says. What a frame begins with, and the handshake, are in
//! `handshake`. `docs/WIRE.md` has all of them as tables, and a test compares the two.
//!
//! A `message` has the name and the fields of a struct of the protocol, and is translated field by
//! field; a `layout` is translated by hand, where it is used.

use rkyv::Place;
use rkyv::munge::munge;
use rkyv::rend::unaligned::{u16_ule, u32_ule, u64_ule};

use super::WireError;
use super::layout::{Description, Laid, Layout, Maybe, layout, message};

/// Declares layouts, and lists them.
macro_rules! layouts {
    ($($(#[$doc:meta])* $how:ident $name:ident { $($field:tt)* })*) => {
        $($how! { $(#[$doc])* $name { $($field)* } })*

        /// All layouts with names, in the order of their declaration.
        pub(super) const LAYOUTS: &[Description] = &[$($name::DESCRIPTION),*];
    };
}

layouts! {
    // Parts of messages.

    /// (R2)
    message Ballot { round: u64_ule, proposer: u8, incarnation: u64_ule, }
    /// (R24)
    message BatchId { gateway: u8, incarnation: u64_ule, number: u64_ule, }
    /// (R22)
    message SessionId { slot: u64_ule, index: u32_ule, }
    /// (R16)
    message SnapshotId { at: u64_ule, replica: u8, incarnation: u64_ule, }
    /// The identity of a snapshot.
    message SnapshotInfo {
        id: SnapshotId,
        formation: u64_ule,
        parts: u32_ule,
        bytes: u64_ule,
        digest: u64_ule,
        state_hash: u64_ule,
    }
    /// The position of a command in the log.
    message Position { slot: u64_ule, index: u32_ule, }
    /// A command of the log (R38).
    message LoggedCommand { at: Position, checksum: u32_ule, }
    /// A role that may be of several kinds.
    layout Who { kind: u8, id: u8, }
    /// A batch without its block, which is a payload.
    layout Batch {
        id: BatchId,
        attempt: u32_ule,
        answerer: u8,
        commands_count: u32_ule,
        block_bytes: u32_ule,
        checksum: u32_ule,
    }
    /// A no-op, or a batch.
    layout Value { stamp: u64_ule, batch: Maybe<Batch>, }
    /// A table; as many [`Directory`] entries follow the layout that it is part of.
    layout Table { cluster_digest: u64_ule, origin: Maybe<SnapshotId>, acceptors_count: u32_ule, }
    /// Entry: an acceptor's directory.
    layout Directory { id: u64_ule, }
    /// Entry: an acceptor's vote in a slot.
    layout SlotVote { slot: u64_ule, ballot: Ballot, value: Value, }
    /// Entry: a slot as a replica executed it.
    layout SlotValue { ballot: Ballot, value: Value, }

    // Messages between roles.

    /// The beginning of all of them: the sender's formation, and the number of the receiving
    /// gateway, proposer and so on.
    layout Route { formation: Maybe<u64_ule>, to: u8, }
    layout Heartbeat {
        ballot: Ballot,
        stage: u8,
        chosen: u64_ule,
        no_room: u64_ule,
        is_silent: u8,
        table: Table,
    }
    message HeartbeatAck { from: Who, ballot: Ballot, is_low: u8, clock: u64_ule, }
    message Unserved { gateway: u8, }
    message NotLeader { proposer: u8, batch: BatchId, attempt: u32_ule, hint: Maybe<u8>, }
    layout Results {
        replica: u8,
        batch: BatchId,
        attempt: u32_ule,
        slot: u64_ule,
        outcomes: Checked,
    }
    message NotExecuted { replica: u8, batch: BatchId, attempt: u32_ule, }
    layout Halted {
        replica: u8,
        incarnation: u64_ule,
        why: u8,
        command: LoggedCommand,
        message: Checked,
    }
    message Probe { proposer: u8, nonce: u64_ule, cluster_digest: u64_ule, }
    layout ProbeAck {
        from: Who,
        nonce: u64_ule,
        directory: u64_ule,
        is_blank: u8,
        origin: Maybe<SnapshotId>,
        table: Maybe<Table>,
    }
    layout Form { proposer: u8, table: Table, }
    layout Formed { acceptor: u8, directory: u64_ule, table: Table, }
    message PreVote { proposer: u8, nonce: u64_ule, }
    message PreVoteAck {
        acceptor: u8,
        directory: u64_ule,
        nonce: u64_ule,
        is_quiet: u8,
        is_low: u8,
        promised: Ballot,
        votes_end: u64_ule,
    }
    message P1a { ballot: Ballot, first: u64_ule, page: u64_ule, }
    /// As many [`SlotVote`] entries follow.
    layout P1b {
        acceptor: u8,
        directory: u64_ule,
        ballot: Ballot,
        truncated: u64_ule,
        from: u64_ule,
        to: Maybe<u64_ule>,
        votes_count: u32_ule,
    }
    layout Propose { batch: Batch, lowest: u64_ule, }
    layout P2a { ballot: Ballot, slot: u64_ule, via: u8, is_recovered: u8, value: Value, }
    message P2b { acceptor: u8, directory: u64_ule, ballot: Ballot, slot: u64_ule, }
    message Nack { slot: Maybe<u64_ule>, refused: Ballot, promised: Ballot, }
    message Truncated {
        acceptor: Maybe<u8>,
        slot: u64_ule,
        ballot: Ballot,
        truncated: u64_ule,
    }
    layout Chosen { slot: u64_ule, ballot: Ballot, value: Value, }
    message Executed {
        replica: u8,
        incarnation: u64_ule,
        executed: u64_ule,
        snapshot: u64_ule,
        nonce: Maybe<u64_ule>,
    }
    message Need { replica: u8, incarnation: u64_ule, slot: u64_ule, }
    message Identify { watcher: Who, nonce: u64_ule, }
    message Fetch { replica: u8, first: u64_ule, }
    /// As many [`SlotValue`] entries follow.
    layout Fetched { replica: u8, first: u64_ule, executed: u64_ule, slots_count: u32_ule, }
    message Replay { replica: u8, first: u64_ule, }
    /// As many [`SlotVote`] entries follow.
    layout Replayed {
        acceptor: u8,
        directory: u64_ule,
        truncated: u64_ule,
        from: u64_ule,
        to: Maybe<u64_ule>,
        votes_count: u32_ule,
    }
    message FetchPart {
        replica: u8,
        snapshot: Maybe<SnapshotId>,
        part: u32_ule,
        beyond: u64_ule,
    }
    layout FetchedPart {
        replica: u8,
        snapshot: Maybe<SnapshotId>,
        info: Maybe<SnapshotInfo>,
        is_coming: u8,
        part: u32_ule,
        bytes: Checked,
    }
    message Ask {
        batch: BatchId,
        attempt: u32_ule,
        session: Maybe<SessionId>,
        first: u64_ule,
        count: u32_ule,
    }
    message PreRead { gateway: u8, incarnation: u64_ule, probe: u64_ule, }
    message PreReadAck {
        acceptor: u8,
        directory: u64_ule,
        incarnation: u64_ule,
        probe: u64_ule,
        vote_watermark: Maybe<u64_ule>,
    }
    layout Read {
        gateway: u8,
        incarnation: u64_ule,
        group: u64_ule,
        first: u32_ule,
        at_least: u64_ule,
        queries: Checked,
    }
    layout ReadResults {
        replica: u8,
        incarnation: u64_ule,
        group: u64_ule,
        first: u32_ule,
        executed: u64_ule,
        replies: Checked,
    }
    message FillTo { gateway: u8, to: u64_ule, }

    // Connections.

    /// The beginning of a [`Hello`], in every version.
    layout Greeting { magic: [u8; 6], version_min: u8, version_max: u8, wire_digest: u64_ule, }
    /// Follows [`Greeting`].
    layout Hello {
        cluster_digest: u64_ule,
        formation: Maybe<u64_ule>,
        nonce: u64_ule,
        log: Maybe<LogPosition>,
        purpose: u8,
        path: Path,
        cluster_name_bytes: u8,
        cluster_name: [u8; 64],
    }
    /// From which core to which; zero unless a peer says it.
    layout Path { from_node: u8, from_core: u8, to_node: u8, to_core: u8, }
    /// Also a message of its own (R33).
    layout LogPosition { directory: u64_ule, recovered: u64_ule, synced: u64_ule, }
    layout Welcome {
        version: u8,
        nonce: u64_ule,
        formation: Maybe<u64_ule>,
        log: Maybe<LogPosition>,
        commands_in_flight_max: u32_ule,
        command_bytes_max: u32_ule,
    }
    /// The same in every version.
    layout Refusal { reason: u8, text_bytes: u16_ule, text: [u8; 256], }

    // A client and its gateway.

    /// A payload, with a checksum made when it was encoded.
    layout Checked { bytes: u32_ule, checksum: u32_ule, }
    /// From a client: the session that it has, or none, and then the key that it asks for one by.
    /// To a client: the session that it has got.
    layout Session { session: Maybe<SessionId>, key: u64_ule, }
    /// As many [`Command`], [`Query`] or [`Reply`] entries follow.
    layout Run { count: u32_ule, payloads: Checked, }
    /// A [`Run`] follows: of commands whose numbers follow `first` by one.
    layout Commands { first: u64_ule, lowest_unanswered: u64_ule, }
    /// A [`Run`] follows: of queries whose numbers follow `first` by one. `seen` is zero unless the
    /// level is 2.
    layout Reads { first: u64_ule, level: u8, seen: u64_ule, }
    /// Entry: a client's query.
    layout Query { bytes: u32_ule, }
    /// Entry: a client's command.
    layout Command { bytes: u32_ule, }
    /// Entry: the reply to a client's command.
    layout Reply { number: u64_ule, position: Position, bytes: u32_ule, }
    /// `detail` is zero unless it is for want of room or replicas have halted; `position` and
    /// `message` unless replicas have halted.
    layout Failed {
        number: u64_ule,
        failure: u8,
        detail: u64_ule,
        position: Position,
        message: Checked,
    }
    layout Status { status: Checked, }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: &str = include_str!("../../../docs/WIRE.md");

    /// For each layout a table: offset, size, field, and what it means.
    #[test]
    fn docs_wire_describes_every_field() {
        for layout in LAYOUTS {
            let heading = format!("#### {}\n", layout.name);
            let section = WIRE.split_once(&heading).map(|(_, rest)| rest);
            let section = section.unwrap_or_else(|| panic!("no heading {heading}"));
            let rows: Vec<_> = section
                .lines()
                .skip_while(|line| !line.starts_with('|'))
                .take_while(|line| line.starts_with('|'))
                .skip(2) // what the columns are
                .map(|line| line.split('|').skip(1).take(3).map(str::trim).collect::<Vec<_>>())
                .collect();
            let mut offset = 0;
            let fields = layout.fields.iter().map(|(name, size)| {
                let row = vec![offset.to_string(), size.to_string(), format!("`{name}`")];
                offset += size;
                row
            });
            let fields: Vec<_> = fields.collect();
            assert_eq!(rows, fields, "{} in docs/WIRE.md", layout.name);
        }
    }

    #[test]
    fn docs_wire_lists_every_kind() {
        for kind in crate::wire::Kind::ALL {
            let row = format!("| 0x{:02x} | `{}` |", kind.number(), kind.name());
            assert!(WIRE.contains(&row), "no row {row}");
        }
    }
}
