//! What fuzzing began with, each for its target. The committed corpus is what became of it.

use loggos::Config;
use loggos::kv::{Answer, Command, Version};
use loggos::{GatewayId, Position, Slot};
use loggos_protocol::{BatchWriter, Incarnation, ReplyItems, ResultWriter, RunAnswers, SessionId};

use crate::{samples, wire};

const SESSION: SessionId = SessionId { slot: Slot(1), index: 2 };

/// Frames of all samples, one by one.
pub fn headers() -> Vec<Vec<u8>> {
    samples::messages().iter().map(|message| wire::header_input(&samples::frame(message))).collect()
}

/// The same one by one and by fives, cut in several ways.
pub fn frames() -> Vec<Vec<u8>> {
    let frames: Vec<_> = samples::messages().iter().map(samples::frame).collect();
    let cut = |sizes: [u8; 4], frames: &[Vec<u8>]| [&sizes[..], &frames.concat()].concat();
    let alone = frames.chunks(1).map(|frame| cut([0; 4], frame));
    let together = frames.chunks(5).zip(0..).map(|(frames, size)| cut([size, 17, 255, 1], frames));
    alone.chain(together).collect()
}

/// Blocks of all commands and outcomes, and all commands and answers.
pub fn contents() -> Vec<Vec<u8>> {
    let (key, value) = (&b"key"[..], &b"17"[..]);
    let commands = [
        Command::Put { key, value },
        Command::Get { key },
        Command::GetVersioned { key },
        Command::Increment { key, by: -1 },
        Command::CompareAndSet { key, expected: Some(b"16"), value },
        Command::CompareAndSet { key, expected: None, value },
        Command::Delete { key },
    ];
    let mut batch = BatchWriter::default();
    for command in commands {
        let mut encoded = Vec::new();
        command.encode(&mut encoded).expect("a short command");
        batch.push(&encoded);
    }
    let block = batch.close(SESSION, 3, 2).as_slice().to_vec();
    let items = block[37..].to_vec();
    let open = BatchWriter::open(GatewayId(1), Incarnation(2)).as_slice().to_vec();

    let mut results = ResultWriter::default();
    let at = Position { slot: Slot(5), index: 6 };
    results.done(SESSION, 3, RunAnswers { at, count: 7, replies: ReplyItems::new(&items) });
    results.opened(SESSION);
    results.out_of_order(SESSION, 8);
    results.unknown_session(SESSION);
    results.trimmed(SESSION);
    let results = results.take().as_slice().to_vec();

    let answers = [
        Answer::Stored,
        Answer::Value(value),
        Answer::Versioned { value, version: Version { slot: Slot(1), index: 2 } },
        Answer::Missing,
        Answer::Deleted,
        Answer::Number(-3),
        Answer::Swapped,
        Answer::Mismatch(Some(value)),
        Answer::Mismatch(None),
        Answer::NotANumber,
        Answer::Overflow,
        Answer::Malformed,
    ];
    let answers = answers.map(|answer| {
        let mut encoded = Vec::new();
        answer.encode(&mut encoded);
        encoded
    });
    [block, items, open, results].into_iter().chain(answers).collect()
}

/// The example as it is without its comments, in parts, and with what is only in comments.
pub fn configuration() -> Vec<Vec<u8>> {
    let example = Config::example();
    let plain: Vec<_> = example.lines().filter(|line| !line.starts_with('#')).collect();
    let plain = plain.join("\n");
    let parts = plain.split("\n\n").map(str::to_owned);
    let mut texts: Vec<String> = parts.collect();
    let is_setting = |line: &str| line.starts_with('[') || line.contains(" = ");
    let (_, nodes) = example.split_once("\n# [nodes.a]").unwrap_or_default();
    let (nodes, placement) = nodes.split_once("[placement]\n").unwrap_or_default();
    let uncommented = |text: &str| {
        let lines = text.lines().map(|line| line.trim_start_matches("# "));
        lines.filter(|line| is_setting(line)).collect::<Vec<_>>().join("\n")
    };
    let nodes = format!("[nodes.a]\n{}", uncommented(nodes));
    let placement = format!("[placement]\n{}", uncommented(placement));
    texts.push(format!("{nodes}\n{placement}"));
    texts.extend([nodes, placement, plain]);
    for cluster in [
        "f = 2\nquorums = \"majority\"\nproxy_leaders = 0",
        "quorums = { flexible = { acceptors = 4, read = 3, write = 2 } }",
        "f = 31\nquorums = \"majority\"\nproxy_leaders = 0\nreplicas = 63",
        "f = 0\nname = \"b\"\nproposers = 1\ngateways = 0x10\nreplicas = 1_0",
    ] {
        texts.push(format!("[cluster]\n{cluster}\n"));
    }
    texts.push("[cores]\nidle = \"park\"\ncpus = [0]\n[timing]\ndeadline = \"1.5 s\"".to_owned());
    texts.into_iter().map(String::into_bytes).collect()
}
