#!/usr/bin/env bash
# A detector trained on a small data set and measured on its val photos: classes with at least 100 objects, AP of boxes and
# masks, of the proposals' masks and of masks computed anew for the detector's boxes.
#
#   benchmarks/detection.sh DATA OUTPUT [FIELD=VALUE …]
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
sharpmask train-detector --config detector-cpu annotations="$data/instances_train.json" images="$data/train" \
  output="$output" "$@" --resume
classes=$(python - "$output/detector.safetensors" <<'PYTHON'
import sys
from sharpmask.detection.store import load_detector
print(",".join(entry.name for entry in load_detector(sys.argv[1])[1]))
PYTHON
)
echo "classes: $classes"
for kind in plain refined; do
  more=()
  [ $kind = refined ] && more=(--refine)
  sharpmask detect "$data/val" --detector "$output/detector.safetensors" --annotations "$data/instances_val.json" \
    --output "$output/$kind" --proposals 1000 --proposal-counts 10,30,100,300 --min-score 0.01 "${more[@]}"
done
sharpmask evaluate-detections "$output/plain/bbox.json" "$output/plain/segm.json" "$output/refined/segm.json" \
  --names boxes masks refined --annotations "$data/instances_val.json" --classes "$classes" --by-class --min-score 0.5 \
  --json "$output/figures.json"
sharpmask evaluate-detections "$output"/plain/bbox{,_300,_100,_30,_10}.json --annotations "$data/instances_val.json" \
  --classes "$classes"
