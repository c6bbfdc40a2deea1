//! Tokens scored a second: the fluidity-index alone, and with the fluid token generation rate.
//!
//!     cargo bench --bench metrics

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use metron::metrics::{Deadlined, FluidityRule, fluid_rate, fluidity};

const STREAMS: usize = 200;
const TOKENS: usize = 500;

/// Gaps around 40 ms with a stall now and then, always the same.
fn streams() -> Vec<Vec<u64>> {
    let gap = |i: usize| {
        let noise = (i * 7919 % 1013) as u64 * 20_000;
        if i % 97 == 0 { 400_000_000 } else { 30_000_000 + noise }
    };
    (0..STREAMS).map(|s| (0..TOKENS).map(|t| gap(s * TOKENS + t)).collect()).collect()
}

fn score(criterion: &mut Criterion) {
    let streams = streams();
    let mut group = criterion.benchmark_group("tokens scored");
    group.throughput(Throughput::Elements((STREAMS * TOKENS) as u64));
    let deadlines = Deadlined { first_ns: 300_000_000, next_ns: 50_000_000 };
    group.bench_function("fluidity-index", |bencher| {
        let rule = FluidityRule::default();
        bencher.iter(|| {
            streams.iter().map(|gaps| fluidity(gaps, deadlines, &rule).missed).sum::<u64>()
        });
    });
    group.bench_function("fluid token generation rate", |bencher| {
        let rule = FluidityRule { with_first_token: false, ..FluidityRule::default() };
        let streams: Vec<Option<(&[u64], u64)>> =
            streams.iter().map(|gaps| Some((gaps.as_slice(), 0))).collect();
        bencher.iter(|| fluid_rate(&streams, &rule));
    });
    group.finish();
}

criterion_group!(benches, score);
criterion_main!(benches);
