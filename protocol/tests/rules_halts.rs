//! Replicas that have halted: what they still do, and what others make of it.

mod harness;

use std::time::Duration;

use harness::{Net, grid, millis};
use loggos_protocol::{Event, Halt, ProposerId, RoleId, Settings};

/// A cluster whose replicas have all halted at the same command, after ten others.
fn halted() -> Net {
    let mut net = Net::durable_replicas(Settings { gateways: 2, ..grid(2, 2) });
    (0..10).for_each(|tag| net.write(tag));
    net.submit(10, "panic");
    net.tick();
    net.run_for(millis(1000));
    assert!(net.replicas().all(|replica| replica.halted().is_some()), "each comes to it");
    net
}

#[test]
fn r25_callers_of_every_gateway_are_told_of_a_halt() {
    let mut net = halted();
    let (tag, told) = net.replies().pop().expect("the last is told");
    assert_eq!(tag, 10);
    assert!(told.contains("Halted") && told.contains("has met its command"), "{told}");
    let whys: Vec<_> = net.replicas().map(|replica| replica.halted().cloned()).collect();
    assert!(whys.iter().all(|why| *why == whys[0]), "the same command everywhere: {whys:?}");
    let Some(Halt::Panicked { command, .. }) = &whys[0] else { panic!("{whys:?}") };
    assert_eq!(command.checksum, loggos_protocol::Payload::copy(b"panic").checksum());
    // For as long as they are halted, and whether a gateway has anything under way or not.
    for _ in 0..20 {
        net.run_for(millis(3000));
        assert!((0..2).all(|gateway| net.gateway(gateway).halted(net.now).is_some()));
    }
}

#[test]
fn r28_a_leader_stays_that_gets_nothing_executed_since_replicas_have_halted() {
    let mut net = halted();
    net.events.clear();
    (11..40).for_each(|tag| net.write(tag));
    net.run_for(Duration::from_secs(120));
    assert!(net.proposer(0).is_leading());
    assert_eq!(net.events, [], "no other leader would do better");
}

#[test]
fn r05_replicas_that_have_halted_count_for_the_next_leader() {
    let mut net = halted();
    (11..20).for_each(|tag| net.write(tag));
    (0..2).for_each(|proposer| net.stop(RoleId::Proposer(ProposerId(proposer))));
    net.start(RoleId::Proposer(ProposerId(1))); // it has met no replica yet
    net.run_for(Duration::from_secs(20));
    assert!(net.proposer(1).is_leading(), "{:?}", net.events);
    assert!(!net.events.iter().any(|event| matches!(event, Event::Silenced { .. })));
    assert!(net.gateway(0).halted(net.now).is_some(), "they say so to it, too");
}
