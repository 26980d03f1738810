#!/usr/bin/env bash
# A detector trained on a small data set and measured on its val photos, on the classes that have at least 100 objects and
# on all it knows: AP of boxes, with and without box voting, of the proposals' masks, of masks computed anew for the
# detector's boxes, and over the number of proposals.
#
#   [CONFIG=detector-lite2] benchmarks/detection.sh DATA OUTPUT [FIELD=VALUE …]
#
# DATA holds instances_train.json, train/, instances_val.json, val/. Further fields go to train-detector. Proposals are
# computed once and kept in OUTPUT; a stopped run goes on.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: benchmarks/detection.sh DATA OUTPUT [FIELD=VALUE …]" >&2
  exit 2
fi
data=$1 output=$2
shift 2
sharpmask train-detector --config "${CONFIG:-detector-cpu}" annotations="$data/instances_train.json" \
  images="$data/train" output="$output" "$@" --resume
# names LEAST: the classes with at least so many objects in training.
names() {
  python - "$output/detector.safetensors" "$1" <<'PYTHON'
import sys
from sharpmask.detection.store import load_detector
print(",".join(entry.name for entry in load_detector(sys.argv[1])[1] if entry.examples >= int(sys.argv[2])))
PYTHON
}
detect() {
  sharpmask detect "$data/val" --detector "$output/detector.safetensors" --annotations "$data/instances_val.json" \
    --min-score 0.01 "$@"
}
evaluate() {
  sharpmask evaluate-detections "$@" --annotations "$data/instances_val.json"
}
detect --output "$output/counts" --proposals 1000 --proposal-counts 10,30,100,300 --no-overlay
detect --output "$output/plain"
detect --output "$output/unvoted" --vote 0 --no-overlay
detect --output "$output/refined" --refine --no-overlay
for least in 100 1; do
  classes=$(names $least)
  echo "classes with $least objects or more: $classes"
  evaluate "$output/plain/bbox.json" "$output/unvoted/bbox.json" "$output/plain/segm.json" "$output/refined/segm.json" \
    --names boxes unvoted masks refined --classes "$classes" --by-class --min-score 0.5 --json "$output/figures-$least.json"
  evaluate "$output"/counts/bbox{,_300,_100,_30,_10}.json --classes "$classes" --min-score 0.5
done
