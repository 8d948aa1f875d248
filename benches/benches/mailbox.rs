//! The mailbox between two cores: how long a tick takes to get across, by the messages in it.
//!
//! Half of a round trip is what a slot pays each time it changes cores; divided by the messages of
//! a tick it is what handing them over together saves.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loggos_net::mailbox;

fn round_trip(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox round trip");
    for messages in [1, 16, 256_u64] {
        let (mut to, mut arrived) = mailbox::<[u64; 24]>(8, 4096);
        let (mut back, mut returned) = mailbox::<[u64; 24]>(8, 4096);
        // Ends when its peer is gone: the last message is all ones.
        let echo = std::thread::spawn(move || {
            let mut is_over = false;
            while !is_over {
                let items = arrived.drain(|message| {
                    is_over |= message[0] == u64::MAX;
                    back.push(message, |_| false);
                });
                if items > 0 {
                    back.flush();
                } else {
                    std::hint::spin_loop();
                }
            }
        });
        group.throughput(Throughput::Elements(messages));
        group.bench_function(format!("{messages} messages of 192 bytes"), |b| {
            b.iter(|| {
                (0..messages).for_each(|message| to.push([message; 24], |_| false));
                to.flush();
                let mut back = 0;
                while back < messages {
                    back += returned.drain(drop) as u64;
                    std::hint::spin_loop();
                }
            });
        });
        to.push([u64::MAX; 24], |_| false);
        to.flush();
        echo.join().expect("the echo does not panic");
    }
    group.finish();
}

criterion_group!(benches, round_trip);
criterion_main!(benches);
