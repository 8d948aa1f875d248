//! Nothing that people or clients write makes a process panic: the fuzz targets, over their corpus
//! and mutants of it.

#[allow(unreachable_pub, reason = "shared with the fuzz targets")]
#[path = "../../fuzz/src/configuration.rs"]
mod configuration;
#[allow(unreachable_pub, reason = "shared with the fuzz targets")]
#[path = "../../fuzz/src/contents.rs"]
mod contents;
#[path = "../../fuzz/src/corpus.rs"]
mod corpus;

#[test]
fn configurations_are_refused_with_a_place_or_make_a_whole_cluster() {
    corpus::run("configuration", 3_000, configuration::configuration);
}

#[test]
fn what_is_in_payloads_is_read_or_refused_and_does_the_same_in_runs_as_alone() {
    corpus::run("contents", 50_000, contents::contents);
}
