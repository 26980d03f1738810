// Which masks are shown: the filters of the sliders, all within the browser, in the order of the command line's cleaning:
// score and area, then suppression of doubles (NMS), then the best so many.

import { contains, decode, innerPixel, overlap } from "./rle.js";

/** The masks of an answer of /v1/proposals, best first, decoded. `id` is the place in that order. */
export function readMasks(found) {
  const { height } = found.image;
  return found.proposals.map((proposal, id) => {
    const [x, y, width, boxHeight] = proposal.bbox;
    const runs = decode(proposal.segmentation.counts);
    return {
      id,
      score: proposal.score,
      area: proposal.area,
      box: [x, y, x + width, y + boxHeight],
      runs,
      middle: innerPixel(runs, proposal.area, height),
      segmentation: proposal.segmentation,
    };
  });
}

/** Those of `masks` that hold the pixel (x, y), the smallest first. */
export function masksAt(masks, x, y, height) {
  const place = x * height + y;
  return masks
    .filter(({ box, runs }) => x >= box[0] && x < box[2] && y >= box[1] && y < box[3] && contains(runs, place))
    .sort((a, b) => a.area - b.area || a.id - b.id);
}

/** Answers "do these two overlap by more than that", computing each pair of masks at most once. */
export class Overlaps {
  constructor(masks) {
    this.masks = masks;
    this.known = new Float64Array(masks.length * masks.length).fill(-1);
  }

  above(i, j, limit) {
    const a = this.masks[i];
    const b = this.masks[j];
    // The most that boxes and areas allow: nearly all pairs are settled by it.
    const width = Math.min(a.box[2], b.box[2]) - Math.max(a.box[0], b.box[0]);
    const height = Math.min(a.box[3], b.box[3]) - Math.max(a.box[1], b.box[1]);
    if (width <= 0 || height <= 0) return limit < 0;
    const most = Math.min(width * height, a.area, b.area);
    if (most <= limit * (a.area + b.area - most)) return false;
    const key = i * this.masks.length + j;
    if (this.known[key] < 0) {
      const common = overlap(a.runs, b.runs);
      this.known[key] = common / (a.area + b.area - common);
    }
    return this.known[key] > limit;
  }
}

/**
 * The masks to show, best first.
 * filters: minScore; minArea and maxArea in pixels; nms, an IoU (1 keeps all); count.
 */
export function choose(masks, overlaps, filters) {
  const kept = [];
  for (const mask of masks) {
    if (kept.length >= filters.count) break;
    if (mask.score < filters.minScore || mask.area < filters.minArea || mask.area > filters.maxArea) continue;
    if (filters.nms < 1 && kept.some((other) => overlaps.above(other.id, mask.id, filters.nms))) continue;
    kept.push(mask);
  }
  return kept;
}
