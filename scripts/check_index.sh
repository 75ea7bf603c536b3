#!/bin/sh
# Index one archive with one process, with two, killed again and again, and on a Ray cluster of two nodes on loopback:
# the hub must keep the same observations each time. Needs the extras hub and ray; two minutes on two cores.
# Usage: scripts/check_index.sh [--files 400] [--kills 12] [--bundle FOLDER] [--no-ray]
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
OMP_NUM_THREADS=1 "${PYTHON:-python}" -m tests.simulate.index_trial "$work" "$@"
