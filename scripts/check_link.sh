#!/usr/bin/env bash
# How much of a slow, lossy line is codes: the real edge-sync and the real hub in two network namespaces, real TCP.
#   sudo scripts/check_link.sh [--rate BIT_PER_S] [--observations N] [--loss PERCENT] [--at-least SHARE]
#   without --loss: 0 % loss with 1000 observations must give 0.50, 20 % loss with 300 must give 0.20
#   --rate N          of the line, each way (2400)
# Line bytes are all bytes of IP packets that either side sends, those that are lost on the way too.
# Needs root, ip, tc with tbf, nft. PYTHON=... chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

rate=2400 observations=1000 loss='' at_least=0.50
while [ $# -gt 0 ]; do
    case $1 in
    --rate) rate=${2:?--rate: expected bit/s}; shift ;;
    --observations) observations=${2:?--observations: expected a number}; shift ;;
    --loss) loss=${2:?--loss: expected a percentage}; shift ;;
    --at-least) at_least=${2:?--at-least: expected a share}; shift ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "check_link: unknown option $1; see --help" >&2; exit 2 ;;
    esac
    shift
done
python=${PYTHON:-python3}
[ "$(id -u)" = 0 ] || { echo "check_link: expected root; run it with sudo" >&2; exit 1; }
for tool in ip tc nft; do
    command -v $tool >/dev/null || { echo "check_link: $tool is missing; run: apt install iproute2 nftables" >&2; exit 1; }
done
if [ -z "$loss" ]; then
    "$0" --rate "$rate" --loss 0 --observations 1000 --at-least 0.50
    "$0" --rate "$rate" --loss 20 --observations 300 --at-least 0.20
    exit
fi

folder=$(mktemp -d) name=fc$$ hub_pid=
trap '[ -z "$hub_pid" ] || kill "$hub_pid" 2>/dev/null || true; for end in a b; do ip netns del $name$end 2>/dev/null || true; done; rm -rf "$folder"' EXIT
for end in a b; do ip netns add $name$end; done
ip -n ${name}a link add line type veth peer name line netns ${name}b
for end in a b; do
    ip -n $name$end link set lo up
    # one packet is one packet: what the kernel would cut later is counted as it travels
    ip -n $name$end link set line gso_max_segs 1 up
    ip -n $name$end addr add 10.9.9.$([ $end = a ] && echo 1 || echo 2)/24 dev line
    ip netns exec $name$end tc qdisc add dev line root tbf rate "${rate}bit" burst 1600 limit 65536
    [ "$loss" = 0 ] || ip netns exec $name$end nft -f - <<RULES
table ip loss {
    chain input {
        type filter hook input priority 0
        iifname "line" numgen random mod 100 < $loss counter drop
    }
}
RULES
done

"$python" -c "
import sys; from pathlib import Path; sys.path.insert(0, '.')
from tests.simulate.large_store import build_large_store
build_large_store(Path('$folder/store.sqlite'), $observations, 'test-0123456789ab')"
ip netns exec ${name}b "$python" -m hub.command serve --folder "$folder/hub" --host 10.9.9.2 --port 8077 >"$folder/hub.log" 2>&1 &
hub_pid=$!
for _ in $(seq 300); do grep -q 'listening at' "$folder/hub.log" && break; sleep 0.1; done
grep -q 'listening at' "$folder/hub.log" || { cat "$folder/hub.log" >&2; exit 1; }
code=$("$python" -m hub.command enrol --folder "$folder/hub" | tail -1)
counted() { # bytes of IP packets that both ends have sent: Ethernet's 14 bytes a packet are not of the line
    local end total=0
    for end in a b; do
        total=$((total + $(ip netns exec $name$end sh -c 'echo $(($(cat /sys/class/net/line/statistics/tx_bytes) - 14 * $(cat /sys/class/net/line/statistics/tx_packets)))')))
    done
    echo $total
}
before=$(counted) started=$(date +%s)
ip netns exec ${name}a "$python" -m edge.sync --store "$folder/store.sqlite" --hub http://10.9.9.2:8077 --code "$code" --json --for 3600 >"$folder/sync.json"
seconds=$(($(date +%s) - started)) line=$(($(counted) - before))
"$python" - "$folder/sync.json" "$line" "$seconds" "$rate" "$loss" "$observations" "$at_least" <<'END'
import json, sys
told = json.loads(open(sys.argv[1]).read())
line, seconds, rate, loss, n, at_least = int(sys.argv[2]), int(sys.argv[3]), *map(float, sys.argv[4:])
share = told["n_code_bytes"] / line
print(f"{rate:.0f} bit/s, {loss:.0f} % loss: {told['n_observations']} observations in {seconds} s and {told['n_batches']} batches:"
      f" {told['n_code_bytes']} code bytes / {line} line bytes = {share:.3f} (at least {at_least});"
      f" edge-sync estimated {told['n_line_bytes']}")
sys.exit(not (told["n_observations"] == n and share >= at_least))
END
