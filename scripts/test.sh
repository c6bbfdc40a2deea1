#!/usr/bin/env bash
# The whole test command: every test of the workspace, in release (the models under test are real).
#
# Tests that need real weights fetch them as the program does, tests that need a browser use the one
# that is installed; without they say so and pass, but fail with METRON_REQUIRE_WEIGHTS=1 and
# METRON_REQUIRE_BROWSER=1. scripts/install-browser.sh installs one.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --release --workspace "$@"
