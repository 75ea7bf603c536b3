#!/bin/sh
# Hold the hub to its promises, and write what comes out to docs/hub_load.md. Takes half an hour on two cores.
#   1. every seq exactly once or inside a drop range: STEPS random steps of a fleet behind a proxy of faults, with the
#      hub killed (SIGKILL) and, as root on Linux, its disk full
#   2. RECORDERS recorders with the real client, 12 observations a minute each, for MINUTES minutes
# Usage: scripts/check_hub.sh [delivery] [load]       STEPS=10000 SEED=1 RECORDERS=2000 MINUTES=10 TMPDIR=/dev/shm
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
parts=${*:-delivery load}
work=$(mktemp -d)
small=$work/disk
hub=
clean_up() {
    [ -z "$hub" ] || kill "$hub" 2>/dev/null || true
    umount "$small" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM
mkdir -p build "$small"
export OMP_NUM_THREADS=1

for part in $parts; do
    case $part in
    delivery)
        full_disk=
        if mount -t tmpfs -o size=96m none "$small" 2>/dev/null; then
            full_disk="--hub-folder $small/hub"
        else
            echo "not root: the hub's disk does not get full in this run" >&2
        fi
        # shellcheck disable=SC2086 - no argument, or two
        "$python" -m tests.simulate.delivery_trial "$work/trial" --steps "${STEPS:-10000}" --seed "${SEED:-1}" \
            $full_disk >"$work/delivery.json"
        mv "$work/delivery.json" build/hub_delivery.json
        ;;
    load)
        mkdir -p "$work/hub"
        "$python" -m hub.command serve --folder "$work/hub" --port 0 >"$work/url" 2>"$work/hub.log" &
        hub=$!
        until [ -e "$work/url" ] && grep -q 'listening at' "$work/url"; do
            kill -0 "$hub" || { cat "$work/hub.log" >&2; exit 1; }
            sleep 0.2
        done
        url=$(sed -n 's/^listening at //p' "$work/url")
        "$python" -m tests.simulate.fleet "$work/hub" "$url" --cards "$work/cards" --recorders "${RECORDERS:-2000}" \
            --minutes "${MINUTES:-10}" --hub-process "$hub" --most-p99-ms 1000 >"$work/load.json" || {
            cat "$work/load.json" "$work/hub.log" >&2
            exit 1
        }
        mv "$work/load.json" build/hub_load.json
        kill "$hub"
        wait "$hub" || true
        hub=
        ;;
    *)
        sed -n '2,7s/^# //p' "$0"
        exit 2
        ;;
    esac
done
"$python" -m tests.simulate.hub_report build docs/hub_load.md
