//! Small worlds, searched through to their ends: no rule is broken, and all that should come up
//! does.

use loggos_model::{Bounds, Findings, Limits, World, search};
use loggos_protocol::QuorumSystem;

/// One campaign of each proposer, and one command each, for one slot.
const LEAST: Bounds = Bounds {
    slots: 1,
    campaigns: [1, 1],
    commands: [1, 1],
    resends: 0,
    retries: 0,
    repeats: 0,
    is_deaf: false,
};

fn grid() -> QuorumSystem {
    QuorumSystem::grid(2, 2, 1).expect("survives one loss")
}

fn majority() -> QuorumSystem {
    QuorumSystem::majority(1).expect("survives one loss")
}

fn world(quorums: QuorumSystem, proxy_leaders: u8, page_slots: u32, bounds: Bounds) -> World {
    World::new(quorums, proxy_leaders, page_slots, bounds).expect("makes a cluster")
}

/// Searches through a world with two proxy leaders.
fn search_all(quorums: QuorumSystem, bounds: Bounds) -> Findings {
    search_world(world(quorums, 2, 256, bounds), None)
}

fn search_world(world: World, steps: Option<usize>) -> Findings {
    let findings = search(world, Limits { steps, threads: 2 });
    for finding in findings.properties.iter().filter(|finding| finding.is_rule) {
        let path = finding.path.as_ref().map_or("", |path| &path.text);
        assert!(path.is_empty(), "{}:\n{path}", finding.property);
    }
    findings
}

/// Every rule holds in every state of the world, and what makes it worth a search comes up.
fn assert_safe(findings: &Findings) {
    assert!(findings.is_complete, "{} states", findings.states);
    for finding in findings.properties.iter().filter(|finding| !finding.is_rule) {
        assert!(finding.path.is_some(), "never seen: {}", finding.property);
    }
}

#[test]
fn two_proposers_over_a_majority_never_disagree() {
    assert_safe(&search_all(majority(), LEAST));
}

#[test]
fn two_proposers_over_a_grid_never_disagree() {
    assert_safe(&search_all(grid(), LEAST));
}

#[test]
fn proposers_that_have_proxy_leaders_of_their_own_never_disagree() {
    for quorums in [majority(), grid()] {
        assert_safe(&search_world(world(quorums, 0, 256, LEAST), None));
    }
}

#[test]
fn votes_of_several_write_quorums_never_make_a_slot_look_chosen() {
    assert_safe(&search_all(majority(), Bounds { retries: 1, ..LEAST }));
}

#[test]
fn a_slot_sent_through_both_proxy_leaders_is_chosen_once() {
    assert_safe(&search_all(majority(), Bounds { resends: 1, is_deaf: true, ..LEAST }));
}

#[test]
fn two_slots_of_a_grid_keep_apart() {
    assert_safe(&search_all(grid(), Bounds { slots: 2, ..LEAST }));
}

#[test]
fn promises_in_pages_of_one_slot_recover_both_slots() {
    let bounds = Bounds { slots: 2, commands: [2, 0], ..LEAST };
    assert_safe(&search_world(world(majority(), 2, 1, bounds), None));
}

#[test]
#[ignore = "takes minutes: .ci/nightly runs it"]
fn a_proposer_that_is_deposed_and_leads_again_never_disagrees() {
    assert_safe(&search_all(majority(), Bounds { campaigns: [2, 1], ..LEAST }));
    let further = Bounds { campaigns: [2, 1], retries: 1, is_deaf: true, ..LEAST };
    assert_safe(&search_all(majority(), further));
}

#[test]
#[ignore = "takes minutes: .ci/nightly runs it"]
fn promises_and_proposals_that_come_twice_change_nothing() {
    assert_safe(&search_all(majority(), Bounds { repeats: 1, ..LEAST }));
    assert_safe(&search_all(grid(), Bounds { repeats: 1, is_deaf: true, ..LEAST }));
}

#[test]
#[ignore = "takes minutes: .ci/nightly runs it"]
fn votes_of_both_rows_of_a_grid_never_make_a_slot_look_chosen() {
    assert_safe(&search_all(grid(), Bounds { retries: 1, ..LEAST }));
}

#[test]
fn a_search_that_is_cut_short_says_so() {
    let whole = world(majority(), 2, 256, LEAST);
    let findings = search_world(whole, Some(12));
    assert_eq!((findings.is_complete, findings.steps), (false, 12));
}
