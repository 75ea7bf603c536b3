#!/usr/bin/env bash
# Install or upgrade a recorder: Raspberry Pi OS or Debian (64-bit), JetPack 6. Nothing is compiled on the board.
#   sudo scripts/install_device.sh [--board rpi4|rpi5|rpi_zero2w|jetson_orin_nano] [--wheel-dir DIR] [--dry-run]
#   --board NAME      which firmware_configs/NAME.toml to begin with (default: the board it finds itself on)
#   --wheel-dir DIR   install without a network, from the wheels that scripts/check_wheels.sh put into DIR
#   --gpu-index URL   where onnxruntime-gpu for Jetson comes from; --cpu: leave the GPU alone
#   --root DIR        put everything below DIR, start nothing, make no user (to build or try an image)
#   --dry-run         print what would be done
# Puts the program at /opt/fieldcube, configuration at /etc/fieldcube (never overwritten), data at /var/lib/fieldcube.
set -euo pipefail

board='' wheel_dir='' root='' dry='' gpu=yes
gpu_index=https://pypi.jetson-ai-lab.io/jp6/cu126
while [ $# -gt 0 ]; do
    case $1 in
    --board) board=${2:?--board: expected a name}; shift ;;
    --wheel-dir) wheel_dir=$(cd "${2:?--wheel-dir: expected a folder}" && pwd); shift ;;
    --gpu-index) gpu_index=${2:?--gpu-index: expected a URL}; shift ;;
    --root) mkdir -p "${2:?--root: expected a folder}" && root=$(cd "$2" && pwd); shift ;;
    --cpu) gpu= ;;
    --dry-run) dry=yes ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "install_device: unknown option $1; see --help" >&2; exit 2 ;;
    esac
    shift
done
cd "$(dirname "$0")/.."

fail() { echo "install_device: $1" >&2; exit "${2:-1}"; }
say() { echo "== $*"; }
run() { if [ -n "$dry" ]; then echo "   $*"; else "$@"; fi; }

if [ -z "$board" ]; then
    model=$(tr -d '\0' 2>/dev/null </proc/device-tree/model || true)
    case $model in
    "Raspberry Pi 5"* | "Raspberry Pi Compute Module 5"*) board=rpi5 ;;
    "Raspberry Pi 4"* | "Raspberry Pi Compute Module 4"*) board=rpi4 ;;
    "Raspberry Pi Zero 2"* | "Raspberry Pi 3"*) board=rpi_zero2w ;;
    *Jetson*) board=jetson_orin_nano ;;
    *) fail "expected a known board, found ${model:-none}; give --board NAME (firmware_configs/NAME.toml)" 2 ;;
    esac
fi
[ -f "firmware_configs/$board.toml" ] || fail "--board: expected a name in firmware_configs/, found $board" 2
case $(uname -m) in
aarch64 | x86_64) ;;
*) fail "expected a 64-bit system, found $(uname -m): onnxruntime has no wheels for it; install the 64-bit image" ;;
esac
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' ||
    fail "expected Python 3.10 to 3.14, found $("$python" --version 2>&1)"
[ -n "$root$dry" ] || [ "$(id -u)" = 0 ] || fail "expected root; run it with sudo"

opt=$root/opt etc=$root/etc/fieldcube
say "fieldcube for $board with $("$python" --version)${wheel_dir:+, wheels from $wheel_dir}${dry:+ (dry run)}"

missing=()
"$python" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
ldconfig -p 2>/dev/null | grep -q libportaudio || missing+=(libportaudio2)
if [ ${#missing[@]} -gt 0 ]; then
    say "system packages: ${missing[*]}"
    if [ -n "$root$wheel_dir" ]; then
        echo "   not installed; before recording, run: sudo apt install ${missing[*]}"
    else
        run apt-get install --yes --no-install-recommends "${missing[@]}" ||
            fail "the packages ${missing[*]} are missing; run: sudo apt update && sudo apt install ${missing[*]}"
    fi
fi

if [ -z "$root" ] && ! id fieldcube >/dev/null 2>&1; then
    say "user fieldcube"
    run useradd --system --user-group --home-dir /var/lib/fieldcube --no-create-home --shell /usr/sbin/nologin \
        --groups audio fieldcube
fi

# The new version is complete beside the old one before it takes its place: a power cut leaves one that works.
new=$opt/fieldcube-$(date -u +%Y%m%dT%H%M%SZ)
old=$(readlink "$opt/fieldcube" || true) # "" the first time
say "program: $new"
source_copy=$(mktemp -d)
trap 'rm -rf "$source_copy"; [ -n "$dry" ] || [ "$(readlink "$opt/fieldcube")" = "$new" ] || rm -rf "$new"' EXIT
run cp -r pyproject.toml LICENSE README.md edge train export "$source_copy" # building leaves files beside the source
run mkdir -p "$opt"
run "$python" -m venv "$new"
pip() {
    run "$new/bin/python" -m pip --disable-pip-version-check install --only-binary :all: --no-compile --no-deps \
        ${wheel_dir:+--no-index --find-links "$wheel_dir"} "$@"
}
wanted=$source_copy/requirements.txt
grep -v '^onnxruntime==' requirements/recorder.txt >"$wanted"
pip --quiet --requirement "$wanted"
runtime=onnxruntime
if [ "$board" = jetson_orin_nano ] && [ -n "$gpu" ]; then
    index=(--index-url "$gpu_index")
    [ -z "$wheel_dir" ] || index=()
    if pip --quiet "${index[@]}" --requirement requirements/jetson.txt; then
        runtime=onnxruntime-gpu
    else
        echo "   onnxruntime-gpu is not to be had; the CPU takes its place" >&2
    fi
fi
[ $runtime = onnxruntime-gpu ] || pip --quiet --constraint requirements/recorder.txt onnxruntime
pip --quiet "$source_copy"
run "$new/bin/python" -m compileall -q "$new/lib"

say "configuration: $etc"
for pair in "firmware_configs/$board.toml:config.toml" examples/watchlist.txt:watchlist.txt; do
    if [ -e "$etc/${pair#*:}" ]; then
        echo "   ${pair#*:} is kept as it is"
    else
        run install -D -m 0644 "${pair%:*}" "$etc/${pair#*:}"
    fi
done

say "services: edge-monitor, edge-sync, edge-update"
[ -n "$root" ] || run systemctl stop edge-{sync,update}.{timer,service} edge-monitor-restart.path edge-monitor.service 2>/dev/null || true # not there yet, the first time
run ln -sfn "$new" "$opt/fieldcube.new"
run mv -T "$opt/fieldcube.new" "$opt/fieldcube"
for unit in edge-monitor.service edge-monitor-restart.{path,service} edge-{sync,update}.{service,timer}; do
    run install -D -m 0644 "firmware_configs/systemd/$unit" "$root/etc/systemd/system/$unit"
done
if [ -z "$root" ]; then
    run install -d -o fieldcube -g fieldcube -m 0750 /var/lib/fieldcube
fi

say "edge-check"
status=0
if [ -n "$root" ]; then
    run "$opt/fieldcube/bin/edge-check" || status=$?
else
    run runuser -u fieldcube -- env -C /var/lib/fieldcube /opt/fieldcube/bin/edge-check --config /etc/fieldcube/config.toml || status=$?
    run systemctl daemon-reload
    # the timers do nothing while [sync] names no hub and [updates] no folder
    run systemctl enable --now edge-monitor.service edge-monitor-restart.path edge-sync.timer edge-update.timer
fi
[ $status = 0 ] || fail "installed, but edge-check found what would fail in the field: see above; edit $etc/config.toml
   and run edge-check again. ${old:+The version before is kept: ln -sfn $old $opt/fieldcube}" $status
[ -z "$old" ] || run rm -rf "$old"
say "done: $opt/fieldcube; edit $etc/config.toml and watchlist.txt, then: sudo systemctl restart edge-monitor"
