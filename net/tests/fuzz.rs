//! Nothing that arrives makes a node panic: the fuzz targets, over their corpus and mutants of it.

#[path = "../../fuzz/src/corpus.rs"]
mod corpus;
#[allow(dead_code, reason = "shared with other tests")]
mod samples;
#[allow(dead_code, unreachable_pub, reason = "shared with the fuzz targets")]
#[path = "../../fuzz/src/wire.rs"]
mod wire;

#[test]
fn streams_of_frames_say_the_same_however_they_arrive() {
    corpus::run("frames", 20_000, wire::frames);
}

#[test]
fn frames_of_every_kind_are_refused_or_are_what_a_correct_sender_could_send() {
    corpus::run("headers", 50_000, wire::headers);
}

/// The corpus was made of the samples once; these are the samples of today.
#[test]
fn all_samples_pass_through_the_targets() {
    let messages = samples::messages();
    let frames = messages.iter().map(samples::frame);
    let mut stream = vec![1, 7, 0, 100];
    for frame in frames {
        wire::headers(&wire::header_input(&frame));
        stream.extend(frame);
    }
    wire::frames(&stream);
}
