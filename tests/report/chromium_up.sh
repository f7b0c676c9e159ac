#!/usr/bin/env bash
# Installs Chromium and its driver, as root on a Debian, for the tests of the report in a browser.
set -euo pipefail
if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit 0; fi
log=${1:-/tmp/posbench-chromium.log}
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -q && apt-get install -yq --no-install-recommends chromium chromium-driver; } \
	>"$log" 2>&1 || { tail -5 "$log" >&2; exit 1; }
