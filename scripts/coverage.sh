#!/usr/bin/env bash
# Prints how often Metron's intervals cover the truth and its verdicts find what is there, on queues
# with known answers (M/M/1 and M/D/1), with 2,000 repetitions a row, or as many as are asked for.
# Minutes on two cores; fails if a row misses what is promised.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --release --quiet --example coverage -- "${1:-2000}"
