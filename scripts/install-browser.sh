#!/usr/bin/env bash
# Installs headless Chromium, in which a test opens the report, where there is none.
set -euo pipefail

for browser in chromium chromium-browser google-chrome; do
  command -v "$browser" >/dev/null && exit 0
done
if ! command -v apt-get >/dev/null; then
  echo "install Chromium by your system's own means; the test looks for chromium on the PATH" >&2
  exit 1
fi
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq chromium >/dev/null
