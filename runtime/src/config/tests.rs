//! Every kind of mistake, with its place and what is said of it.

mod nodes;

use std::time::Duration;

use loggos_protocol::{AcceptorId, ProposerId, QuorumSystem, ReplicaId, RoleId};

use super::read::read;
use super::{Config, Durability, LogLimits};
use crate::idle::Idle;

/// What is said of `text` by a process that may use cores 0, 1 and 3.
fn mistakes(text: &str) -> Vec<String> {
    let errors = read(text, &[0, 1, 3]).expect_err(text);
    errors.iter().map(ToString::to_string).collect()
}

fn config(text: &str) -> Config {
    read(text, &[0, 1, 3]).unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

/// Checks that `text` has this one mistake.
#[track_caller]
fn refused(text: &str, expected: &str) {
    assert_eq!(mistakes(text), [expected], "{text}");
}

#[test]
fn nothing_said_is_the_standard() {
    assert_eq!(Config::from_toml(""), Ok(Config::standard()));
    assert_eq!(Config::from_toml("[cluster]\n[limits]\n[placement]\n"), Ok(Config::standard()));
}

#[test]
fn every_section_is_read() {
    let config = config(
        "[cluster]\nf = 2\nproposers = 4\nquorums = \"majority\"\ndurability = \"memory\"\n\
         [limits]\nbatch_bytes_max = \"128KiB\"\nmailbox_messages_max = 1_000\n\
         [timing]\nheartbeat_interval = \"20ms\"\ndeadline = \"1.5s\"\n\
         [cores]\ncpus = [3, 0]\npoll_idle = \"1ms\"\n\
         [placement]\n\"acceptor 4\" = 0\n\"proposer  3\" = 0\n",
    );
    let cluster = &config.cluster;
    assert_eq!((cluster.f, cluster.proposers, cluster.proxy_leaders), (2, 4, 3));
    assert_eq!((cluster.replicas, cluster.gateways), (5, 1));
    assert_eq!(cluster.quorums, QuorumSystem::majority(2).unwrap());
    assert_eq!((cluster.batch_bytes_max, config.mailbox_messages_max), (128 << 10, 1000));
    assert_eq!(cluster.heartbeat_interval, Duration::from_millis(20));
    assert_eq!(config.deadline, Duration::from_millis(1500));
    assert_eq!(config.cpus, [3, 0]);
    assert_eq!(config.idle, Idle::Adaptive { poll_idle: Duration::from_millis(1) });
    let mut expected = Config::on_cpus(cluster.clone(), vec![3, 0]).placement;
    assert_eq!(expected.insert(RoleId::Acceptor(AcceptorId(4)), 0), Some(1));
    assert_eq!(expected.insert(RoleId::Proposer(ProposerId(3)), 0), Some(1));
    assert_eq!(config.placement, expected);
}

#[test]
fn quorums_are_read_in_every_form() {
    let quorums = |text: &str| config(text).cluster.quorums;
    assert_eq!(quorums("[cluster]\nf = 2"), QuorumSystem::grid(3, 3, 2).unwrap());
    assert_eq!(
        quorums("cluster.quorums.grid = { rows = 2, columns = 3 }"),
        QuorumSystem::grid(2, 3, 1).unwrap()
    );
    assert_eq!(
        quorums("[cluster.quorums.flexible]\nacceptors = 4\nread = 3\nwrite = 2"),
        QuorumSystem::flexible(4, 3, 2, 1).unwrap()
    );
}

#[test]
fn idle_is_read_in_every_form() {
    assert_eq!(config("[cores]\nidle = \"poll\"").idle, Idle::Poll);
    assert_eq!(config("[cores]\nidle = \"park\"").idle, Idle::Park);
    refused(
        "[cores]\nidle = \"prak\"",
        "2:8: `idle` must be \"adaptive\", \"poll\" or \"park\", not \"prak\"; did you mean `park`?",
    );
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    refused("\n[clutser]\nf = 1", "2:2: unknown section `clutser`; did you mean `cluster`?");
    refused(
        "[zzz]",
        "1:2: unknown section `zzz`; known are `cluster`, `limits`, `timing`, `cores`, `nodes`, \
         `placement`",
    );
    refused(
        "[cluster]\nf = 1\n  replcas = 3",
        "3:3: unknown key `replcas` in [cluster]; did you mean `replicas`?",
    );
    refused(
        "[cores]\nthreads = 3",
        "2:1: unknown key `threads` in [cores]; known are `cpus`, `idle`, `poll_idle`",
    );
    refused("f = 2", "1:1: `f` belongs in [cluster]");
    refused("[limits]\ndeadline = \"1s\"", "2:1: `deadline` belongs in [timing]");
    refused("cluster = 3", "1:11: `cluster` must be a section, written [cluster], not 3");
    refused("[[cores]]", "1:1: `cores` must be a section, written [cores], not an array");
}

#[test]
fn values_of_another_type_or_size_are_refused() {
    refused("[cluster]\nf = \"one\"", "2:5: `f` must be a whole number from 0 to 31, not \"one\"");
    refused("[cluster]\nf = -1", "2:5: `f` must be a whole number from 0 to 31, not -1");
    refused(
        "[cluster]\nreplicas = 256",
        "2:12: `replicas` must be a whole number from 0 to 255, not 256",
    );
    refused(
        "[limits]\nsessions_max = 1.5",
        "2:16: `sessions_max` must be a whole number from 0 to 1048576, not 1.5",
    );
    refused(
        "[limits]\nbatch_bytes_max = \"64KB\"",
        "2:19: `batch_bytes_max` must be bytes, from 0 to 1GiB: a whole number, or a string with B, \
         KiB, MiB or GiB such as \"64KiB\", not \"64KB\"",
    );
    refused(
        "[timing]\ndeadline = 5",
        "2:12: `deadline` must be a time, from \"0s\" to \"24h\": a string with ns, us, ms, s, min or \
         h such as \"50ms\", not 5",
    );
    refused(
        "[cluster]\ndurability = true",
        "2:14: `durability` must be \"memory\" or \"sync\", not true",
    );
}

#[test]
fn durability_and_the_sizes_of_logs_are_read() {
    let text = "[cluster]\ndurability = \"sync\"\n[limits]\nlog_bytes_max = \"16GiB\"\n\
                log_segment_bytes = \"4MiB\"\n";
    let config = Config::from_toml(text).unwrap();
    assert_eq!(config.durability, Some(Durability::Sync));
    assert_eq!(config.log, LogLimits { bytes_max: 16 << 30, segment_bytes: 4 << 20 });
    assert_eq!(Config::from_toml("").unwrap().durability, None);
    refused(
        "[cluster]\ndurability = \"snyc\"",
        "2:14: `durability` must be \"memory\" or \"sync\", not \"snyc\"; did you mean `sync`?",
    );
    refused(
        "[limits]\nlog_segment_bytes = \"128KiB\"",
        "2:1: `log_segment_bytes`: must be at least 262144: twice batch_bytes_max and 128KiB",
    );
    refused(
        "[limits]\nlog_bytes_max = \"255MiB\"",
        "2:1: `log_bytes_max`: must be at least four log_segment_bytes",
    );
}

#[test]
fn quorums_that_are_none_are_refused() {
    let wanted = "must be { grid = { rows = 2, columns = 2 } }, \"majority\", or { flexible = { \
                  acceptors = 4, read = 3, write = 2 } }";
    let of = |quorums: &str| format!("[cluster]\nquorums = {quorums}");
    refused(&of("\"grid\""), &format!("2:11: `quorums` {wanted}, not \"grid\""));
    refused(&of("{ grid = 4 }"), &format!("2:20: `quorums` {wanted}, not 4"));
    refused(
        &of("{ girdle = { rows = 2, columns = 2 } }"),
        "2:13: unknown kind of quorums `girdle`; did you mean `grid`?",
    );
    refused(
        &of("{ grid = { rows = 2 } }"),
        &format!("2:20: `columns` is missing: `quorums` {wanted}"),
    );
    assert_eq!(
        mistakes(&of("{ grid = { rows = 2, column = 0, columns = 65 } }")),
        [
            "2:32: unknown key `column`; did you mean `columns`?",
            "2:54: `columns` must be a whole number from 1 to 64, not 65",
        ]
    );
    refused(
        &of("{ grid = { rows = 1, columns = 4 } }"),
        "2:11: `quorums` do not work: a 1 × 4 grid cannot survive the loss of 1: both sides need at \
         least f + 1 = 2",
    );
    refused(
        "[cluster]\nf = 8",
        "2:1: `f` needs other quorums than the default, a grid of f + 1 by f + 1: 81 acceptors are \
         more than 64; write quorums = \"majority\" in [cluster]",
    );
}

#[test]
fn cores_that_cannot_be_used_are_refused() {
    assert_eq!(
        mistakes("[cores]\ncpus = [0, 2, 0, -1]"),
        [
            "2:12: cpu 2 is not there, or not for this process: it may use 0, 1, 3",
            "2:15: cpu 0 is listed twice: each can be used once",
            "2:18: a cpu must be a whole number from 0 to 1023, not -1",
        ]
    );
    let wanted = "`cpus` must be an array of at least one processor core, such as [0, 1]";
    refused("[cores]\ncpus = []", &format!("2:8: {wanted}, not an empty one"));
    refused("[cores]\ncpus = 1", &format!("2:8: {wanted}, not 1"));
}

#[test]
fn placements_that_cannot_be_are_refused() {
    let of = |entry: &str| format!("[cores]\ncpus = [0, 1]\n[placement]\n{entry}");
    refused(
        &of("\"replica 0\" = 2"),
        "4:15: a role's core, an index into `cpus`, must be a whole number from 0 to 1, not 2",
    );
    refused(
        &of("\"replica 3\" = 0"),
        "4:1: there is no `replica 3`: the cluster has 3 of this kind, `replica 0` to `replica 2`",
    );
    refused(
        &of("\"gateway 1\" = 0"),
        "4:1: there is no `gateway 1`: the cluster has only `gateway 0`",
    );
    refused(
        &of("\"acceptor 3\" = 0\n\"acceptor  3\" = 1"),
        "5:1: `acceptor  3` is `acceptor 3` once more: name it once",
    );
    refused(
        &of("\"proxyleader 1\" = 0"),
        "4:1: unknown role `proxyleader 1`; did you mean `proxy leader 1`?",
    );
    refused(
        &of("\"replica\" = 0"),
        "4:1: `replica` says not which replica: add its number, such as `replica 0`",
    );
    refused(
        &of("disk = 0"),
        "4:1: unknown role `disk`; roles are gateway, proposer, proxy leader, acceptor and replica, \
         each with its number, such as `acceptor 3`",
    );
}

#[test]
fn without_proxy_leaders_those_of_the_proposers_can_be_placed() {
    let text = "[cluster]\nproxy_leaders = 0\nproposers = 3\n[placement]\n\"proxy leader 2\" = 1\n";
    assert_eq!(config(text).cluster.proxy_leaders_running(), 3);
    refused(
        &text.replace("leader 2", "leader 3"),
        "5:1: there is no `proxy leader 3`: the cluster has 3 of this kind, `proxy leader 0` to \
         `proxy leader 2`",
    );
}

#[test]
fn contradictions_are_told_where_the_setting_is() {
    refused(
        "[cluster]\nf = 2\nproposers = 2\n",
        "3:1: `proposers`: 2 proposer(s) cannot survive the loss of 2: at least 3 are needed",
    );
    refused(
        "[limits]\nslot_window = 1000",
        "2:1: `slot_window`: 1000 is not a power of two from 8 to 1048576",
    );
    refused("[timing]\ndeadline = \"0s\"", "2:1: `deadline`: must be above zero");
    refused(
        "[timing]\nbatch_delay = \"2s\"\ndeadline = \"2s\"",
        "2:1: `batch_delay`: must be below deadline = 2s",
    );
    refused(
        "[timing]\nreport_interval = \"2s\"",
        "1:2: `replica_grace`, by default \"1500ms\": must be above report_interval = 2s",
    );
    refused(
        "[limits]\nmailbox_messages_max = 0",
        "2:1: `mailbox_messages_max`: must be at least 1",
    );
}

/// A key that the text lacks has no place: its section is named, and its default.
#[test]
fn contradictions_with_a_default_are_told_where_its_section_is() {
    refused(
        "# slow\n[timing]\nheartbeat_interval = \"200ms\"",
        "2:2: `election_timeout`, by default \"300ms\": must be at least three heartbeat_interval = \
         200ms",
    );
}

#[test]
fn what_was_not_understood_contradicts_nothing() {
    refused(
        "[timing]\nheartbeat_interval = \"200 m\"\nelection_timeout = \"100ms\"",
        "2:22: `heartbeat_interval` must be a time, from \"0s\" to \"24h\": a string with ns, us, ms, \
         s, min or h such as \"50ms\", not \"200 m\"",
    );
    refused(
        "[cluster]\nf = 99\nproposers = 1\n[placement]\n\"replica 20\" = 0",
        "2:5: `f` must be a whole number from 0 to 31, not 99",
    );
    assert_eq!(
        mistakes(
            "[cluster]\nreplicas = \"3\"\n[placement]\n\"replica 20\" = 0\n\"replica 300\" = 0"
        ),
        [
            "2:12: `replicas` must be a whole number from 0 to 255, not \"3\"",
            "5:1: there is no `replica 300`: no cluster has more than `replica 0` to `replica 254`",
        ]
    );
    refused(
        "[cluster]\nquorums = \"most\"\n[placement]\n\"acceptor 30\" = 0",
        "2:11: `quorums` must be { grid = { rows = 2, columns = 2 } }, \"majority\", or { flexible = \
         { acceptors = 4, read = 3, write = 2 } }, not \"most\"",
    );
}

#[test]
fn what_is_no_toml_is_told_once_a_line_beside_the_rest() {
    refused("f 1", "1:3: this is no TOML: key with no value, expected `=`");
    refused("[cluster]\nf = 1\nf = 2", "3:1: this is no TOML: duplicate key");
    assert_eq!(
        mistakes(
            "[cluster]\nf =\nproposers = yes\nreplicas = \"3\"\n[placement]\n\"replica 9\" = 0"
        ),
        [
            "2:4: this is no TOML: string values must be quoted, expected literal string",
            "3:13: this is no TOML: string values must be quoted, expected literal string",
            "4:12: `replicas` must be a whole number from 0 to 255, not \"3\"",
        ]
    );
    // What an open bracket has swallowed is not looked at.
    assert_eq!(
        mistakes("[cores]\ncpus = [0, 9\n[placement]\n\"replica 9\" = 7"),
        [
            "2:12: cpu 9 is not there, or not for this process: it may use 0, 1, 3",
            "3:1: this is no TOML: missing comma between array elements, expected `,`",
            "4:1: this is no TOML: missing comma between array elements, expected `,`",
        ]
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_text() {
    let text = "\
[timing]
resend_min = \"2s\"
[placement]
\"replica 7\" = 0
[cluster]
proposers = 1
gatways = 2
[limits]
page_slots_max = \"all\"
";
    let errors = Config::from_toml(text).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "configuration:2:1: `resend_min`: must be above zero and at most resend_max = 1s\n\
         configuration:4:1: there is no `replica 7`: the cluster has 3 of this kind, `replica 0` to \
         `replica 2`\n\
         configuration:6:1: `proposers`: 1 proposer(s) cannot survive the loss of 1: at least 2 are \
         needed\n\
         configuration:7:1: unknown key `gatways` in [cluster]; did you mean `gateways`?\n\
         configuration:9:18: `page_slots_max` must be a whole number from 0 to 1048576, not \"all\""
    );
}

/// Texts that are nearly right are those that people write.
#[test]
fn any_text_is_read_or_refused() {
    let example = Config::example();
    let lines: Vec<_> = example.lines().filter(|line| !line.starts_with("# ")).collect();
    let text = lines.join("\n");
    for (at, _) in text.char_indices() {
        let prefix = &text[..at];
        let is_read = read(prefix, &[0, 1]).is_ok();
        assert!(is_read || !mistakes(prefix).is_empty(), "{prefix}");
        for other in ["", "=", "[", "]", "\"", "9", "-", "{", "é"] {
            let text = format!("{prefix}{other}{}", &text[at + 1..]);
            let Err(errors) = read(&text, &[0, 1]) else { continue };
            assert!(errors.is_sorted_by_key(|error| error.place), "{text}: {errors:?}");
            assert!(!errors.is_empty(), "{text}");
        }
    }
}

#[test]
fn a_file_is_named_in_its_mistakes() {
    let path = std::env::temp_dir().join(format!("loggos-config-{}.toml", std::process::id()));
    let missing = Config::load(&path).unwrap_err().to_string();
    assert!(missing.starts_with(&format!("{}: cannot be read: ", path.display())), "{missing}");
    std::fs::write(&path, "[cluster]\nf = 0\n").unwrap();
    let loaded = Config::load(&path);
    std::fs::write(&path, "[cluster]\nf = x\n").unwrap();
    let broken = Config::load(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    let last = RoleId::Replica(ReplicaId(0));
    assert_eq!(loaded.unwrap().placement.keys().next_back(), Some(&last));
    assert!(broken.starts_with(&format!("{}:2:5: this is no TOML: ", path.display())), "{broken}");
}
