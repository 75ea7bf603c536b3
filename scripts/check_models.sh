#!/bin/sh
# Export the true architectures at true size (random weights, real inputs) and write the table of docs/models.md.
# Needs the export extra, 16 GB of memory for ViT-L/14, and about an hour. Real weights: give sources of your own,
#   scripts/check_models.sh DATA "bioclip folder:/path/labels.csv" "biolingual fieldcube:DATA?sets=esc10"
# Usage: scripts/check_models.sh DATA ["ENCODER DATASET" ...]
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,6s/^# //p' "$0"; exit 2; }
data=$1
shift
python=${PYTHON:-python}
rows=build/models.json
measure() {
    encoder=$1 dataset=$2
    shift 2
    "$python" export/full_size.py --encoder "$encoder" --dataset "$dataset" --json "$rows" "$@"
}
if [ $# -gt 0 ]; then
    for each in "$@"; do
        measure "${each%% *}" "${each#* }"
    done
else
    measure clap:random "fieldcube:$data?sets=esc10,birdguess_audio&split=train"
    measure open_clip:ViT-B-16 "folder:$data/caltech101_animals/labels.csv"
    measure open_clip:ViT-L-14 "folder:$data/caltech101_animals/labels.csv" --inputs 24 --runtimes onnx
fi
"$python" export/full_size.py --json "$rows" --table docs/models.md
