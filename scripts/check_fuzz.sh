#!/usr/bin/env bash
# Send a million damaged batches, enrolments and clips to the hub's parts: nothing but refusals and receipts may come back.
# Arguments: --n N, --seed N. Takes some minutes of one core.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup workstation
exec .venv-dev/bin/python -m tests.simulate.fuzz_hub "$@"
