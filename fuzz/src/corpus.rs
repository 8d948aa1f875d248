//! The committed corpus, and mutants of it, for tests that have no fuzzer.

use std::path::Path;

use loggos_protocol::Rng;

/// Runs `entry` on every file of `corpus/<target>`, then on as many mutants of these. What it
/// panics on is printed.
pub(crate) fn run(target: &str, mutants: usize, entry: fn(&[u8])) {
    let seeds = seeds(target);
    for seed in &seeds {
        run_one(seed, entry);
    }
    let mut rng = Rng::new(1);
    for _ in 0..mutants {
        let mut mutant = seeds[below(&mut rng, seeds.len())].clone();
        for _ in 0..=rng.below(4) {
            let other = &seeds[below(&mut rng, seeds.len())];
            mutate(&mut mutant, other, &mut rng);
        }
        run_one(&mutant, entry);
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = files.map(|file| file.expect("a file of the corpus").path()).collect();
    assert!(!paths.is_empty(), "{folder:?} is empty");
    // A folder has an order of its own.
    paths.sort();
    let read = |path| std::fs::read(path).expect("a file of the corpus");
    paths.iter().map(read).collect()
}

fn run_one(input: &[u8], entry: fn(&[u8])) {
    struct Shown<'a>(&'a [u8]);
    impl Drop for Shown<'_> {
        #[expect(clippy::print_stderr, reason = "how a test came to fail is said there")]
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("it panicked on b\"{}\"", self.0.escape_ascii());
            }
        }
    }
    let shown = Shown(input);
    entry(shown.0);
}

/// Changes `bytes` somewhere, and not always for the worse: with a part of `other`, or a number
/// that is often a bound.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let at = below(rng, bytes.len() + 1);
    let end = (at + 1 + below(rng, 8)).min(bytes.len());
    let random = rng.next_u64().to_le_bytes()[0];
    match rng.below(8) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => bytes.insert(at, random),
        3 => bytes.extend_from_within(at..end),
        4 => {
            let from = below(rng, other.len() + 1);
            let to = from + below(rng, other.len() - from + 1);
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        5 => bytes[at..end].fill([0, 0x7F, 0x80, 0xFF][below(rng, 4)]),
        _ if at < end => bytes[at] ^= 1 << (random % 8),
        _ => {}
    }
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).expect("it was below a usize")
}
