#!/usr/bin/env bash
# The search for a capacity against queues with known answers: coverage and width of its brackets,
# and the bias of a bisection with one run a rate. Prints a table, with its seeds.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --workspace --example capacity_check
"${CARGO_TARGET_DIR:-target}/release/examples/capacity_check"
