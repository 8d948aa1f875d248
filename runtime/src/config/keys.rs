//! All keys of a configuration: one table for reading it, for "did you mean", and for the example.

use std::time::Duration;

use loggos_protocol::Settings;

use super::value::{shown_bytes, shown_long_bytes, shown_time};
use super::{DEADLINE, LogLimits, MAILBOX_MESSAGES_MAX, POLL_IDLE};

/// A part of a configuration.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
}

/// Something that can be set.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) section: &'static str,
    /// Unique in all sections; where it is a setting of the cluster, the name of its field.
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) kind: Kind,
}

/// Something that can be set of each node.
#[derive(Debug)]
pub(super) struct NodeKey {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
}

/// The type of a key's values, and where they are stored.
#[derive(Debug)]
pub(super) enum Kind {
    Count(fn(&mut Draft) -> &mut u8),
    Number(fn(&mut Draft) -> &mut u32),
    Bytes(fn(&mut Draft) -> &mut u32),
    LongBytes(fn(&mut Draft) -> &mut u64),
    Time(fn(&mut Draft) -> &mut Duration),
    /// Read by code of its own; holds its line in the example.
    Own(&'static str),
}

/// A configuration that is being read: its plain values, at first the defaults.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) settings: Settings,
    pub(super) deadline: Duration,
    pub(super) poll_idle: Duration,
    pub(super) mailbox_messages_max: u32,
    pub(super) log: LogLimits,
}

/// The section whose keys are nodes.
pub(super) const NODES: &str = "nodes";
/// The section whose keys are roles.
pub(super) const PLACEMENT: &str = "placement";

/// In the order of the example.
pub(super) const SECTIONS: [Section; 6] = [
    Section { name: "cluster", what: "What the cluster is made of." },
    Section {
        name: "limits",
        what: "Bounds of windows, queues and batches. Bytes are numbers, or strings such as \"64KiB\".",
    },
    Section { name: "timing", what: "Times are strings such as \"200us\", \"50ms\" or \"1.5s\"." },
    Section { name: "cores", what: "The processor cores that roles run on, one thread on each." },
    Section {
        name: NODES,
        what: "The processes that the cluster is spread over, a table for each, by the name that \
               `loggos node --name` takes.\n# Every role must be in one. Without nodes the cluster is one \
               process. To survive the loss of any f nodes,\n# which `loggos config check` tries, it may \
               be, on four machines:",
    },
    Section {
        name: PLACEMENT,
        what: "Which core each role lives on, as an index into `cpus` (into those of its node, where \
               there are nodes),\n# from 0. A role that is not named goes where it would without this \
               section. On two cores that is:",
    },
];

impl Draft {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            deadline: DEADLINE,
            poll_idle: POLL_IDLE,
            mailbox_messages_max: MAILBOX_MESSAGES_MAX,
            log: LogLimits::default(),
        }
    }
}

impl Key {
    /// What `draft` has for this key, as it is written; none where the key is read by code of its
    /// own.
    pub(super) fn shown(&self, draft: &mut Draft) -> Option<String> {
        match self.kind {
            Kind::Count(place) => Some(place(draft).to_string()),
            Kind::Number(place) => Some(place(draft).to_string()),
            Kind::Bytes(place) => Some(shown_bytes(*place(draft))),
            Kind::LongBytes(place) => Some(shown_long_bytes(*place(draft))),
            Kind::Time(place) => Some(shown_time(*place(draft))),
            Kind::Own(_) => None,
        }
    }
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The names of all keys of a section.
pub(super) fn names_in(section: &str) -> impl Iterator<Item = &'static str> + Clone {
    KEYS.iter().filter(move |key| key.section == section).map(|key| key.name)
}

const fn cluster(name: &'static str, what: &'static str, kind: Kind) -> Key {
    Key { section: "cluster", name, what, kind }
}

const fn limits(name: &'static str, what: &'static str, kind: Kind) -> Key {
    Key { section: "limits", name, what, kind }
}

const fn timing(name: &'static str, what: &'static str, kind: Kind) -> Key {
    Key { section: "timing", name, what, kind }
}

const fn cores(name: &'static str, what: &'static str, kind: Kind) -> Key {
    Key { section: "cores", name, what, kind }
}

/// In the order of the example.
pub(super) static NODE_KEYS: [NodeKey; 4] = [
    NodeKey {
        name: "address",
        what: "Host and port where it listens, to nodes and clients alike. A name is looked up.",
    },
    NodeKey {
        name: "cpus",
        what: "As `cpus` in [cores], which must not be there then. Without this key: all that the reading \
               process may\n# use; name them where machines differ, since nodes must agree on who lives \
               where.",
    },
    NodeKey { name: "roles", what: "What lives in it." },
    NodeKey {
        name: "data",
        what: "Where it keeps what must not be lost, counted from this file; `loggos format` makes it, \
               once. Only a node\n# with acceptors or replicas needs one, and only if they are durable.",
    },
];

/// In the order of the example.
pub(super) static KEYS: [Key; 45] = [
    cluster(
        "name",
        "What it is called, in at most 64 letters, digits, '-', '_' and '.': two clusters of different \
         names refuse\n# each other.",
        Kind::Own("name = \"loggos\""),
    ),
    cluster("f", "Losses of each role to survive, from 0 to 31.", Kind::Own("f = 1")),
    cluster(
        "quorums",
        "How acceptors form quorums. In a grid each row is a write quorum and each column a read \
         quorum;\n# without this key it has f + 1 of both. Or \"majority\": any f + 1 of 2f + 1. Or sizes \
         of one's own:\n# { flexible = { acceptors = 4, read = 3, write = 2 } }.",
        Kind::Own("quorums = { grid = { rows = 2, columns = 2 } }"),
    ),
    cluster(
        "durability",
        "Where acceptors keep what they promised, and replicas their snapshots. In \"memory\", a crashed \
         acceptor is gone\n# for good; with \"sync\" it logs what it says before it says it, and the node \
         needs `data`. Without this key\n# clusters with [nodes] take \"sync\", and those of one process \
         \"memory\".",
        Kind::Own("# durability = \"sync\""),
    ),
    cluster(
        "proposers",
        "At least f + 1, which is the default.",
        Kind::Count(|draft| &mut draft.settings.proposers),
    ),
    cluster(
        "proxy_leaders",
        "At least f + 1, which is the default; or 0: each proposer is its own then.",
        Kind::Count(|draft| &mut draft.settings.proxy_leaders),
    ),
    cluster(
        "replicas",
        "At least f + 1. Below 2f + 1, the default, the cluster halts at its bound when one is lost.",
        Kind::Count(|draft| &mut draft.settings.replicas),
    ),
    cluster(
        "gateways",
        "At least 1; f + 1 to survive the loss of f.",
        Kind::Count(|draft| &mut draft.settings.gateways),
    ),
    limits(
        "slot_window",
        "Slots under way at once: a power of two from 8 to 1048576.",
        Kind::Number(|draft| &mut draft.settings.slot_window),
    ),
    limits(
        "session_window",
        "Commands of one session without an answer; at least batch_commands_max.",
        Kind::Number(|draft| &mut draft.settings.session_window),
    ),
    limits(
        "sessions_max",
        "Sessions of gateways that are remembered; beyond that the one unused for longest is closed.",
        Kind::Number(|draft| &mut draft.settings.sessions_max),
    ),
    limits(
        "client_sessions_max",
        "Sessions of clients that are remembered; beyond that those unused for longest are closed.",
        Kind::Number(|draft| &mut draft.settings.client_sessions_max),
    ),
    limits(
        "batches_in_flight_max",
        "Batches of one gateway without an answer.",
        Kind::Number(|draft| &mut draft.settings.batches_in_flight_max),
    ),
    limits(
        "batch_bytes_max",
        "The longest batch. Must hold the longest command and its headers.",
        Kind::Bytes(|draft| &mut draft.settings.batch_bytes_max),
    ),
    limits(
        "batch_commands_max",
        "The most commands in a batch.",
        Kind::Number(|draft| &mut draft.settings.batch_commands_max),
    ),
    limits(
        "command_bytes_max",
        "The longest command.",
        Kind::Bytes(|draft| &mut draft.settings.command_bytes_max),
    ),
    limits(
        "reply_bytes_max",
        "The longest reply, up to 16 MiB. A command whose reply is longer is executed all the same.",
        Kind::Bytes(|draft| &mut draft.settings.reply_bytes_max),
    ),
    limits(
        "answers_bytes_max",
        "The most bytes of replies that a replica keeps for gateways to give them again, and for \
         clients; and of\n# those of a batch. Up to 1 GiB.",
        Kind::Bytes(|draft| &mut draft.settings.answers_bytes_max),
    ),
    limits(
        "results_bytes_max",
        "The bytes at which a message with the results of a batch ends, and the next one begins.",
        Kind::Bytes(|draft| &mut draft.settings.results_bytes_max),
    ),
    limits(
        "page_slots_max",
        "The most slots in one page of what acceptors tell a new leader, or replicas each other.",
        Kind::Number(|draft| &mut draft.settings.page_slots_max),
    ),
    limits(
        "page_bytes_max",
        "The bytes at which such a page ends.",
        Kind::Bytes(|draft| &mut draft.settings.page_bytes_max),
    ),
    limits(
        "snapshot_part_bytes",
        "The bytes at which a part of a snapshot ends, which a replica sends to a peer that is too far behind.",
        Kind::Bytes(|draft| &mut draft.settings.snapshot_part_bytes),
    ),
    limits(
        "transfer_bytes_per_second_max",
        "The most bytes of snapshots that a replica sends in a second; one in memory also writes and restores \
         no more.",
        Kind::Bytes(|draft| &mut draft.settings.transfer_bytes_per_second_max),
    ),
    limits(
        "transfer_log_bytes_max",
        "The most bytes of batches that a replica in memory keeps for the peers that it sends a snapshot to. \
         One that\n# needs more starts over.",
        Kind::Bytes(|draft| &mut draft.settings.transfer_log_bytes_max),
    ),
    limits(
        "checkpoint_interval",
        "The number of slots after which a replica on disk takes a snapshot; acceptors then let go of the \
         log below.",
        Kind::Number(|draft| &mut draft.settings.checkpoint_interval),
    ),
    limits(
        "checkpoint_bytes",
        "The bytes of batches after which it does so sooner.",
        Kind::LongBytes(|draft| &mut draft.settings.checkpoint_bytes),
    ),
    limits(
        "checkpoint_bytes_per_second_max",
        "How many bytes of a snapshot a replica writes to disk in a second.",
        Kind::Bytes(|draft| &mut draft.settings.checkpoint_bytes_per_second_max),
    ),
    limits(
        "mailbox_messages_max",
        "Messages that wait for a core whose mailbox is full; what exceeds them is dropped.",
        Kind::Number(|draft| &mut draft.mailbox_messages_max),
    ),
    limits(
        "log_bytes_max",
        "How long the log of each core with acceptors may become, at least four log_segment_bytes. Where \
         little of that\n# is left, it votes for nothing new.",
        Kind::LongBytes(|draft| &mut draft.log.bytes_max),
    ),
    limits(
        "log_segment_bytes",
        "The length of its files. Fixed when a node is formatted.",
        Kind::Bytes(|draft| &mut draft.log.segment_bytes),
    ),
    timing(
        "batch_delay",
        "How long a batch waits for company. \"0s\": what arrived in a tick is a batch.",
        Kind::Time(|draft| &mut draft.settings.batch_delay),
    ),
    timing(
        "heartbeat_interval",
        "How often a leader sends heartbeats.",
        Kind::Time(|draft| &mut draft.settings.heartbeat_interval),
    ),
    timing(
        "election_timeout",
        "How long a proposer hears no leader before it campaigns; at least three heartbeat_interval.",
        Kind::Time(|draft| &mut draft.settings.election_timeout),
    ),
    timing(
        "election_stagger",
        "How much later each proposer campaigns than the one before it.",
        Kind::Time(|draft| &mut draft.settings.election_stagger),
    ),
    timing(
        "clock_jump_max",
        "How far a leader's clock may be ahead of acceptors'; else the log's time waits for them.",
        Kind::Time(|draft| &mut draft.settings.clock_jump_max),
    ),
    timing(
        "resend_min",
        "How long an answer is waited for at the least before a message is sent again.",
        Kind::Time(|draft| &mut draft.settings.resend_min),
    ),
    timing(
        "resend_max",
        "How long at the most.",
        Kind::Time(|draft| &mut draft.settings.resend_max),
    ),
    timing(
        "report_interval",
        "How often a replica reports its executed watermark, if that has changed.",
        Kind::Time(|draft| &mut draft.settings.report_interval),
    ),
    timing(
        "probe_interval",
        "How often a suspected acceptor is tried again.",
        Kind::Time(|draft| &mut draft.settings.probe_interval),
    ),
    timing(
        "replica_grace",
        "How long a silent replica can hold the cluster up.",
        Kind::Time(|draft| &mut draft.settings.replica_grace),
    ),
    timing(
        "client_session_unused_max",
        "How long a client may send nothing until its session is closed.",
        Kind::Time(|draft| &mut draft.settings.client_session_unused_max),
    ),
    timing(
        "deadline",
        "How long a call may take; its command may be executed later all the same.",
        Kind::Time(|draft| &mut draft.deadline),
    ),
    cores(
        "cpus",
        "Processor cores by number. Without this key: all that the process may use. Not where \
         there are [nodes]:\n# each has its own.",
        Kind::Own("# cpus = [0, 1]"),
    ),
    cores(
        "idle",
        "What a core does without work: \"poll\" keeps looking for some, \"park\" sleeps at once, \
         \"adaptive\"\n# looks for a while and then sleeps.",
        Kind::Own("idle = \"adaptive\""),
    ),
    cores("poll_idle", "How long \"adaptive\" looks.", Kind::Time(|draft| &mut draft.poll_idle)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::standard_grid;

    #[test]
    fn names_of_keys_are_unique() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.name != key.name), "{}", key.name);
            assert!(SECTIONS.iter().any(|section| section.name == key.section), "{}", key.section);
        }
    }

    /// Also fails when the protocol gets a setting without a key.
    #[test]
    fn every_setting_has_a_key() {
        let settings = format!("{:#?}", Settings::new(1, standard_grid()));
        let fields = settings.lines().filter_map(|line| {
            let field = line.strip_prefix("    ").filter(|field| !field.starts_with(' '))?;
            Some(field.split_once(": ")?.0)
        });
        let fields: Vec<_> = fields.collect();
        assert!(fields.contains(&"slot_window"), "{settings}");
        for field in fields {
            assert!(find(field).is_some(), "{field}");
        }
    }
}
