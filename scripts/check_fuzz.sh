#!/usr/bin/env bash
# Send a million damaged batches, enrolments and clips and a million damaged radio frames to the hub's parts: nothing but refusals and receipts may come back.
# Arguments: --n N, --seed N. A million messages take some minutes of one core, a million frames most of an hour.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup workstation
exec .venv-dev/bin/python -m tests.simulate.fuzz_hub "$@"
