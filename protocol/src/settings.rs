//! What all roles of a cluster must agree on, and the limits they keep.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::block::{
    ANSWERS_BYTES_LIMIT, CLIENT_RUN_HEADER_BYTES, COMMAND_HEADER_BYTES, REPLY_BYTES_LIMIT,
};
use crate::digest::Digest;
use crate::{GatewayId, ProposerId, ProxyLeaderId, QuorumSystem};

/// The most there may be of a role: as many as acceptors, and few enough that no sum of two numbers
/// of roles overflows.
const ROLES_MAX: u8 = 64;

/// Size, limits and timing of a cluster, before they are checked.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Settings {
    /// Losses of each role to survive.
    pub f: u8,
    /// The sets of acceptors that are quorums.
    pub quorums: QuorumSystem,
    /// At least f + 1.
    pub proposers: u8,
    /// At least f + 1, or none: each proposer is its own then, as in plain MultiPaxos.
    pub proxy_leaders: u8,
    /// At least f + 1; below 2f + 1 the cluster halts at its bound when one is lost.
    pub replicas: u8,
    /// At least 1.
    pub gateways: u8,
    /// The number of slots that may be under way at once (R29). A power of two.
    pub slot_window: u32,
    /// The number of commands of one session that may be without an answer (R23).
    pub session_window: u32,
    /// How many sessions a cluster remembers, at least one for each gateway; beyond that the one
    /// unused for longest is closed.
    pub sessions_max: u32,
    /// How many sessions of clients it remembers beside these; beyond that those unused for longest
    /// are closed.
    pub client_sessions_max: u32,
    /// A client's session that was not used for longer, by the log's time, is closed.
    pub client_session_unused_max: Duration,
    /// The number of batches of one gateway that may be without an answer.
    pub batches_in_flight_max: u32,
    /// The longest batch.
    pub batch_bytes_max: u32,
    /// The most commands in a batch.
    pub batch_commands_max: u32,
    /// How long a batch waits for company. Zero: what arrived in a tick is a batch.
    pub batch_delay: Duration,
    /// The longest command.
    pub command_bytes_max: u32,
    /// The longest reply. A command whose reply is longer is executed, and answered with
    /// `ReplyTooLarge`.
    pub reply_bytes_max: u32,
    /// The most bytes of replies that a replica keeps for gateways, to give them again, and for
    /// clients with sessions: beyond that it lets go of the oldest. Nor has a batch more of them.
    pub answers_bytes_max: u32,
    /// The bytes at which a message with the results of a batch ends, and the next one begins.
    pub results_bytes_max: u32,
    /// The most slots in one page of a P1b, or in one answer of a replica to its peer.
    pub page_slots_max: u32,
    /// The bytes at which such a page ends.
    pub page_bytes_max: u32,
    /// The bytes at which a part of a snapshot ends. With its frame it should fit a receive buffer
    /// of 64 KiB.
    pub snapshot_part_bytes: u32,
    /// The most bytes of snapshots that a replica sends in a second; one in memory also writes and
    /// restores no more.
    pub transfer_bytes_per_second_max: u32,
    /// The most bytes of batches that a replica in memory keeps for the peers that it sends a
    /// snapshot to.
    pub transfer_log_bytes_max: u32,
    /// The number of slots after which a durable replica takes a snapshot.
    pub checkpoint_interval: u32,
    /// The bytes of batches after which it does so sooner.
    pub checkpoint_bytes: u64,
    /// The most bytes of such a snapshot that it writes in a second.
    pub checkpoint_bytes_per_second_max: u32,
    /// The interval at which a leader says that it is there.
    pub heartbeat_interval: Duration,
    /// The silence of leaders after which a proposer campaigns.
    pub election_timeout: Duration,
    /// The time by which each proposer does so later than the one before it.
    pub election_stagger: Duration,
    /// How far a leader's clock may be ahead of those of acceptors (R26).
    pub clock_jump_max: Duration,
    /// The least that anything is waited for before it is sent again.
    pub resend_min: Duration,
    /// The most.
    pub resend_max: Duration,
    /// The longest time until a replica says how far it is, when that has changed.
    pub report_interval: Duration,
    /// The interval at which a suspected acceptor is tried again.
    pub probe_interval: Duration,
    /// The time for which a silent replica holds credit (R29).
    pub replica_grace: Duration,
}

/// The reason why [`Settings`] make no cluster. Each says what would be right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SettingsError {
    /// Which setting, by its field's name.
    pub setting: &'static str,
    /// The mistake, and what would be right.
    pub what: String,
}

/// Settings that make a cluster: checked, and shared by all roles.
///
/// source: R3
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ClusterSettings(Arc<Settings>);

impl Settings {
    /// Returns the defaults for `f` losses, in a cluster of the smallest useful size.
    #[must_use]
    pub fn new(f: u8, quorums: QuorumSystem) -> Self {
        Self {
            f,
            quorums,
            proposers: f + 1,
            proxy_leaders: f + 1,
            replicas: 2 * f + 1,
            gateways: 1,
            slot_window: 1024,
            session_window: 1 << 16,
            sessions_max: 1024,
            client_sessions_max: 16 * 1024,
            client_session_unused_max: Duration::from_hours(1),
            batches_in_flight_max: 64,
            batch_bytes_max: 64 * 1024,
            batch_commands_max: 512,
            batch_delay: Duration::ZERO,
            command_bytes_max: 32 * 1024,
            reply_bytes_max: 1 << 20,
            answers_bytes_max: 256 << 20,
            results_bytes_max: 1 << 20,
            page_slots_max: 256,
            page_bytes_max: 256 * 1024,
            snapshot_part_bytes: 60 * 1024,
            transfer_bytes_per_second_max: 256 << 20,
            transfer_log_bytes_max: 256 << 20,
            checkpoint_interval: 50_000,
            checkpoint_bytes: 256 << 20,
            checkpoint_bytes_per_second_max: 64 << 20,
            heartbeat_interval: Duration::from_millis(50),
            election_timeout: Duration::from_millis(300),
            election_stagger: Duration::from_millis(150),
            clock_jump_max: Duration::from_secs(1),
            resend_min: Duration::from_millis(20),
            resend_max: Duration::from_secs(1),
            report_interval: Duration::from_millis(10),
            probe_interval: Duration::from_millis(100),
            replica_grace: Duration::from_millis(1500),
        }
    }

    /// Checks that these settings make a cluster.
    ///
    /// # Errors
    ///
    /// Every setting that contradicts another, with what would be right.
    pub fn check(self) -> Result<ClusterSettings, Vec<SettingsError>> {
        let mut errors = Vec::new();
        let mut require = |holds: bool, setting, what: String| {
            if !holds {
                errors.push(SettingsError { setting, what });
            }
        };
        self.check_roles(&mut require);
        self.check_limits(&mut require);
        self.check_timing(&mut require);
        if errors.is_empty() { Ok(ClusterSettings(Arc::new(self))) } else { Err(errors) }
    }

    fn check_roles(&self, require: &mut impl FnMut(bool, &'static str, String)) {
        let f = self.f;
        let least = u16::from(f) + 1;
        let enough = |count: u8| u16::from(count) >= least;
        let few = |count: u8, what: &str| {
            format!("{count} {what} cannot survive the loss of {f}: at least {least} are needed")
        };
        if let Err(error) = self.quorums.surviving(f) {
            require(false, "quorums", error.to_string());
        }
        require(enough(self.proposers), "proposers", few(self.proposers, "proposer(s)"));
        require(
            self.proxy_leaders == 0 || enough(self.proxy_leaders),
            "proxy_leaders",
            few(self.proxy_leaders, "proxy leader(s)") + ", or 0 to let proposers do their work",
        );
        require(enough(self.replicas), "replicas", few(self.replicas, "replica(s)"));
        require(self.gateways > 0, "gateways", "at least 1 is needed".to_owned());
        for (setting, count) in [
            ("proposers", self.proposers),
            ("proxy_leaders", self.proxy_leaders),
            ("replicas", self.replicas),
            ("gateways", self.gateways),
        ] {
            require(count <= ROLES_MAX, setting, format!("{count} are more than {ROLES_MAX}"));
        }
    }

    fn check_limits(&self, require: &mut impl FnMut(bool, &'static str, String)) {
        require(
            self.slot_window.is_power_of_two() && (8..=1 << 20).contains(&self.slot_window),
            "slot_window",
            format!("{} is not a power of two from 8 to 1048576", self.slot_window),
        );
        let positive = [
            ("batches_in_flight_max", self.batches_in_flight_max),
            ("client_sessions_max", self.client_sessions_max),
            ("batch_commands_max", self.batch_commands_max),
            ("command_bytes_max", self.command_bytes_max),
            ("results_bytes_max", self.results_bytes_max),
            ("page_slots_max", self.page_slots_max),
            ("page_bytes_max", self.page_bytes_max),
            ("snapshot_part_bytes", self.snapshot_part_bytes),
            ("transfer_bytes_per_second_max", self.transfer_bytes_per_second_max),
            ("transfer_log_bytes_max", self.transfer_log_bytes_max),
            ("checkpoint_interval", self.checkpoint_interval),
            ("checkpoint_bytes_per_second_max", self.checkpoint_bytes_per_second_max),
        ];
        for (setting, value) in positive {
            require(value > 0, setting, "must be at least 1".to_owned());
        }
        // With fewer, gateways close each other's sessions for ever.
        require(
            self.sessions_max >= self.gateways.into(),
            "sessions_max",
            format!("must be at least gateways = {}, each of which has a session", self.gateways),
        );
        require(
            self.session_window >= self.batch_commands_max,
            "session_window",
            format!("must be at least batch_commands_max = {}", self.batch_commands_max),
        );
        for (setting, value, most) in [
            ("reply_bytes_max", self.reply_bytes_max, REPLY_BYTES_LIMIT),
            ("results_bytes_max", self.results_bytes_max, REPLY_BYTES_LIMIT),
            ("answers_bytes_max", self.answers_bytes_max, ANSWERS_BYTES_LIMIT),
        ] {
            require(value <= most, setting, format!("must be at most {most}"));
        }
        require(
            self.answers_bytes_max > self.reply_bytes_max,
            "answers_bytes_max",
            format!("must be above reply_bytes_max = {}", self.reply_bytes_max),
        );
        let overhead = CLIENT_RUN_HEADER_BYTES + COMMAND_HEADER_BYTES;
        require(
            self.batch_bytes_max as usize >= self.command_bytes_max as usize + overhead,
            "batch_bytes_max",
            format!("must be at least command_bytes_max + {overhead}, so that any command fits"),
        );
    }

    fn check_timing(&self, require: &mut impl FnMut(bool, &'static str, String)) {
        require(
            !self.heartbeat_interval.is_zero()
                && self.election_timeout >= 3 * self.heartbeat_interval,
            "election_timeout",
            format!("must be at least three heartbeat_interval = {:?}", self.heartbeat_interval),
        );
        require(
            !self.resend_min.is_zero() && self.resend_min <= self.resend_max,
            "resend_min",
            format!("must be above zero and at most resend_max = {:?}", self.resend_max),
        );
        require(
            !self.report_interval.is_zero(),
            "report_interval",
            "must be above zero".to_owned(),
        );
        require(!self.probe_interval.is_zero(), "probe_interval", "must be above zero".to_owned());
        // Else a replica that is well holds no credit between two of its reports.
        require(
            self.replica_grace > self.report_interval,
            "replica_grace",
            format!("must be above report_interval = {:?}", self.report_interval),
        );
    }
}

impl ClusterSettings {
    /// Identifies all that nodes must agree on: nodes that differ never act together.
    ///
    /// That is quorum system and f, without which quorums do not meet; what the state of sessions
    /// follows from, without which replicas diverge; and how many there are of each role, without
    /// which they do not know each other.
    ///
    /// source: R3
    #[must_use]
    pub fn digest(&self) -> u64 {
        let counts =
            [self.proposers, self.proxy_leaders, self.replicas, self.gateways].map(u64::from);
        let state = [
            self.session_window,
            self.sessions_max,
            self.client_sessions_max,
            self.slot_window,
            self.reply_bytes_max,
            self.answers_bytes_max,
        ];
        let state = state.map(u64::from);
        let unused_max = self.client_session_unused_max.as_nanos();
        let unused_max = u64::try_from(unused_max).unwrap_or(u64::MAX);
        let quorums = Digest::new("loggos cluster").word(self.quorums.digest(self.f));
        counts.into_iter().chain(state).chain([unused_max]).fold(quorums, Digest::word).finish()
    }

    /// The number of proxy leaders that run: without any of its own, the cluster's proposers each
    /// have one.
    #[must_use]
    pub fn proxy_leaders_running(&self) -> u8 {
        if self.proxy_leaders == 0 { self.proposers } else { self.proxy_leaders }
    }

    /// The proxy leaders that `proposer` may use: all, or, where the cluster has none, the one that
    /// lives with it.
    ///
    /// source: \[seed\], "plain Paxos"
    #[must_use]
    pub fn proxy_leaders_of(&self, proposer: ProposerId) -> std::ops::Range<u8> {
        if self.proxy_leaders == 0 { proposer.0..proposer.0 + 1 } else { 0..self.proxy_leaders }
    }

    /// All proxy leaders that run.
    pub fn all_proxy_leaders(&self) -> impl Iterator<Item = ProxyLeaderId> + use<> {
        (0..self.proxy_leaders_running()).map(ProxyLeaderId)
    }

    /// All gateways.
    pub fn all_gateways(&self) -> impl Iterator<Item = GatewayId> + use<> {
        (0..self.gateways).map(GatewayId)
    }

    /// All proposers.
    pub fn all_proposers(&self) -> impl Iterator<Item = ProposerId> + use<> {
        (0..self.proposers).map(ProposerId)
    }

    /// How many slots an acceptor, proxy leader or proposer has room for: a leader fills one window
    /// beyond what f+1 replicas have executed, and truncation may lag another behind.
    #[must_use]
    pub fn ring_slots(&self) -> u32 {
        2 * self.slot_window
    }

    /// The slots from the next one on that a replica holds once it has halted: more than the window
    /// that there is credit for, so that what skips the command has a place behind a full one
    /// (R38).
    #[must_use]
    pub(crate) fn slots_held_when_halted(&self) -> u32 {
        self.slot_window + self.slot_window / 2
    }

    /// How many slots a leader may have open at once.
    #[must_use]
    pub(crate) fn open_slots_max(&self) -> u32 {
        2 * self.ring_slots()
    }
}

impl Deref for ClusterSettings {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.0
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.what)
    }
}

impl std::error::Error for SettingsError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Settings {
        Settings::new(1, QuorumSystem::grid(2, 2, 1).unwrap())
    }

    #[test]
    fn the_defaults_make_a_cluster() {
        let cluster = defaults().check().unwrap();
        assert_eq!((cluster.proposers, cluster.proxy_leaders, cluster.replicas), (2, 2, 3));
    }

    #[test]
    fn every_contradiction_is_reported_at_once() {
        let mut settings = defaults();
        settings.f = 2;
        settings.slot_window = 1000;
        (settings.gateways, settings.sessions_max) = (3, 2);
        settings.batch_bytes_max = settings.command_bytes_max;
        settings.election_timeout = settings.heartbeat_interval;
        let errors = settings.check().unwrap_err();
        let names: Vec<_> = errors.iter().map(|e| e.setting).collect();
        assert_eq!(
            names,
            [
                "quorums",
                "proposers",
                "proxy_leaders",
                "slot_window",
                "sessions_max",
                "batch_bytes_max",
                "election_timeout"
            ]
        );
        assert!(errors[1].what.contains("at least 3"), "{}", errors[1]);
    }

    #[test]
    fn no_role_is_there_more_often_than_any_acceptor() {
        let mut settings = defaults();
        (settings.replicas, settings.gateways) = (65, 255);
        let errors = settings.check().unwrap_err();
        let names: Vec<_> = errors.iter().map(|e| e.setting).collect();
        assert_eq!(names, ["replicas", "gateways"]);
    }

    #[test]
    fn without_proxy_leaders_each_proposer_has_its_own() {
        let mut settings = defaults();
        settings.proxy_leaders = 0;
        let cluster = settings.check().unwrap();
        assert_eq!(cluster.proxy_leaders_running(), 2);
        assert_eq!(cluster.proxy_leaders_of(ProposerId(1)), 1..2);
    }
}
