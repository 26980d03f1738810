#!/usr/bin/env bash
# The table in README.md: DeepMask, SharpMask and Selective Search on the same photos, 1,000 proposals an image, zoom 1;
# the models of lite0 in the network's own order, SharpMask and the fast model in the default one.
#   benchmarks/coco_mini.sh IMAGES ANNOTATIONS.json OUTPUT_FOLDER
set -euo pipefail
images=$1 annotations=$2 output=$3
mkdir -p "$output"
search() { # MODEL RANKING
  sharpmask propose "$images" --model "$1" --ranking "$2" --top 1000 --zoom 1 --annotations "$annotations" --no-overlay \
    --output "$output/$1-$2"
}
search deepmask-lite0 paper
search sharpmask-lite0 paper
search sharpmask-lite0 soft
search sharpmask-fast soft
sharpmask baseline selective-search "$images" --annotations "$annotations" --top 1000 --output "$output/selective-search.json"
sharpmask evaluate "$output/sharpmask-lite0-paper/proposals.json" "$output/sharpmask-lite0-soft/proposals.json" \
  "$output/sharpmask-fast-soft/proposals.json" "$output/deepmask-lite0-paper/proposals.json" "$output/selective-search.json" \
  --names SharpMask "SharpMask, soft" "SharpMask fast, soft" DeepMask "Selective Search" --annotations "$annotations" \
  --json "$output/table.json" | tee "$output/table.txt"
sharpmask evaluate "$output/sharpmask-lite0-soft/proposals.json" "$output/sharpmask-fast-soft/proposals.json" \
  --names SharpMask "SharpMask fast" --annotations "$annotations" | tee "$output/fast.txt"
for model in deepmask-lite0 sharpmask-lite0 sharpmask-fast; do
  sharpmask evaluate-patches --model "$model" --annotations "$annotations" --images "$images" | tee "$output/patches-$model.txt"
done
