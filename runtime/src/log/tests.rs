//! The order in which a node's sends and writes leave its ring; and the votes that are read back
//! from its log.

mod recalls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use loggos_kv::{Command, Kv};
use loggos_net::RingRecord;
use loggos_net::wire::{BatchPool, FrameReader, Message};
use loggos_protocol::{
    AcceptorId, Ballot, QuorumSystem, RoleId, Settings, Slot, To, ToProxyLeader,
};
use loggos_storage::{Folder, LogEntry, scan};

use crate::config::{Config, Durability, NodeConfig};
use crate::idle::Idle;
use crate::process::{Process, StartError};

/// Callers at once, and commands of each.
const CALLERS: usize = 16;
const COMMANDS: usize = 50;
/// Writes without votes: promise, table, truncations, marks.
const IDLE_WRITES_MAX: usize = 20;

/// Three acceptors, the first in a node of its own.
fn config(folder: &std::path::Path) -> Config {
    let majority = QuorumSystem::majority(1).unwrap();
    let mut settings = Settings::new(1, majority);
    settings.batch_commands_max = 1; // so that commands do not share slots, but syncs
    settings.page_slots_max = 16;
    let cluster = settings.check().unwrap();
    let mut config = Config::on_cpus(cluster, vec![Config::standard().cpus[0]]);
    config.idle = Idle::Park;
    config.deadline = Duration::from_secs(60);
    config.durability = Some(Durability::Sync);
    config.log.segment_bytes = 16 << 20;
    let cpus = std::mem::take(&mut config.cpus);
    let roles = config.placement.keys().copied();
    let (first, others): (Vec<_>, Vec<_>) =
        roles.partition(|role| *role == RoleId::Acceptor(AcceptorId(0)));
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let nodes = [("first", first), ("others", others)].into_iter().zip(&ports);
    config.nodes = nodes
        .map(|((name, roles), port)| NodeConfig {
            name: name.to_owned(),
            address: port.local_addr().unwrap().into(),
            cpus: cpus.clone(),
            roles,
            data: Some(folder.join(name)),
        })
        .collect();
    config
}

/// Puts a load on the cluster, and returns what the ring of the first acceptor's node has done, in
/// how many ticks of its core.
fn recorded(config: &Config) -> Result<(Vec<RingRecord>, u64), StartError> {
    let (recorder, records) = mpsc::channel();
    for node in 0..2 {
        crate::data::format(config, Some(node)).map_err(StartError::Data)?;
    }
    let first = Process::start_recorded(config, Some(0), |_| Kv::default(), Some(&recorder))?;
    let others = Process::start(config, Some(1), |_| Kv::default())?;
    load(&others);
    let address = config.nodes[0].address.resolve().unwrap();
    let status = crate::remote_status(address, Duration::from_secs(60)).unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    let ticks = status["cores"][0]["ticks"].as_u64().unwrap();
    drop((others, first, recorder));
    Ok((records.into_iter().collect(), ticks))
}

/// Lets callers put values, each one after the other.
fn load(gateway: &Process) {
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let client = gateway.client();
            scope.spawn(move || {
                let (key, mut put) = (caller.to_string(), Vec::new());
                let value = [7; 500];
                Command::Put { key: key.as_bytes(), value: &value }.encode(&mut put).unwrap();
                (0..COMMANDS).for_each(|_| drop(client.execute_blocking(&put).unwrap()));
            });
        }
    });
}

/// Returns the offset of each vote's batch.
fn votes(config: &Config) -> BTreeMap<(Slot, Ballot), u64> {
    let path = config.nodes[0].data.clone().unwrap().join("core-0");
    let mut votes = BTreeMap::new();
    scan(&mut Folder::read_only(&path), None, &mut |place, entry| {
        if let LogEntry::Vote { slot, ballot, .. } = entry {
            assert_eq!(place.segment, 1, "more was written than fits in a segment");
            votes.entry((*slot, *ballot)).or_insert(place.offset);
        }
    })
    .unwrap();
    votes
}

/// One write is under way at a time, and all that a tick or more of them had to write is in the
/// next: so there are no more syncs than ticks, and fewer by far than votes.
#[test]
fn r31_no_p2b_leaves_before_the_write_that_covers_its_vote_has_completed_and_that_covers_many() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let (records, ticks) = recorded(&config).unwrap();
    let votes = votes(&config);
    let (mut under_way, mut durable_to, mut syncs, mut answers) = (None, 0, 0_u64, 0_usize);
    let mut readers = BTreeMap::new();
    for record in records {
        match record {
            RingRecord::Write { offset, bytes, .. } => {
                let end = offset + bytes as u64;
                assert_eq!(under_way.replace(end), None, "two writes at once");
                assert!(offset == durable_to || durable_to == 0, "the log has a hole");
            }
            RingRecord::Written { is_durable, .. } => {
                assert!(is_durable, "the disk has failed");
                durable_to = under_way.take().unwrap();
                syncs += 1;
            }
            RingRecord::Send(to, bytes) => {
                let reader = readers.entry(to).or_insert_with(|| FrameReader::new(1 << 20));
                reader.push(bytes.into());
                while let Some(frame) = reader.next() {
                    let message = frame.unwrap().decode(&mut BatchPool::new(8));
                    let Ok(Message::Envelope(envelope)) = message else { continue };
                    let To::ProxyLeader(_, ToProxyLeader::P2b(p2b)) = envelope.to else { continue };
                    let offset = votes[&(p2b.slot, p2b.ballot)];
                    assert!(offset < durable_to, "{}: told before it was durable", p2b.slot);
                    answers += 1;
                }
            }
        }
    }
    assert!(answers > COMMANDS / 2, "{answers} answers show nothing");
    assert!(syncs <= ticks, "{syncs} syncs in {ticks} ticks");
    let writes = votes.values().collect::<BTreeSet<_>>().len();
    assert!(2 * writes < votes.len(), "{writes} writes of {} votes", votes.len());
    assert!(syncs <= (writes + IDLE_WRITES_MAX) as u64, "{syncs} syncs, {writes} of votes");
}
