#!/usr/bin/env bash
# See whether everything a recorder needs comes as a wheel for a 64-bit ARM board, and keep the wheels.
#   scripts/check_wheels.sh [DIR]     downloads into DIR/py3.10 (JetPack 6), DIR/py3.11 (Debian 12), DIR/py3.13 (Debian 13);
# each is a --wheel-dir for scripts/install_device.sh on a board without a network. Without DIR the wheels are thrown away.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup recorder
python=$PWD/.venv/bin/python

out=${1:-}
[ -n "$out" ] || { out=$(mktemp -d) && trap 'rm -rf "$out"' EXIT; }
mkdir -p "$out"

for board in 3.10:35 3.11:36 3.13:41; do # Python : minor version of glibc 2
    version=${board%:*} glibc=${board#*:}
    wheels=$out/py$version
    tags=$(for minor in $(seq "$glibc" -1 17); do echo "--platform=manylinux_2_${minor}_aarch64"; done)
    # pip judges markers by the Python that it runs in, so they are judged here
    "$python" - "$version" >"$out/py$version.txt" <<'PYTHON'
import sys
from packaging.requirements import Requirement
board = {"python_version": sys.argv[1], "python_full_version": f"{sys.argv[1]}.0", "platform_machine": "aarch64"}
for line in open("requirements/recorder.txt"):
    if not line.startswith("#"):
        one = Requirement(line.strip())
        if one.marker is None or one.marker.evaluate(board):
            print(f"{one.name}{one.specifier}")
print("setuptools>=77")
PYTHON
    echo "== Python $version, glibc 2.$glibc: $(grep -c . "$out/py$version.txt") packages"
    # shellcheck disable=SC2086
    "$python" -m pip download --quiet --no-deps --only-binary :all: --implementation cp --python-version "$version" \
        --abi "cp${version/./}" --abi abi3 --abi none --platform=manylinux2014_aarch64 $tags \
        --dest "$wheels" --requirement "$out/py$version.txt"
    "$python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" .
    (cd "$wheels" && ls ./*.whl | sed 's|^\./|   |') | grep -E 'numpy|onnxruntime|soundfile|soxr|tokenizers|pillow|fieldcube'
    echo "   $(du -sh "$wheels" | cut -f1) in all"
done
