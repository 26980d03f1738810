// The picture on the screen: canvases one over the other, so that moving the pointer redraws only the uppermost.

import { outline } from "./outline.js";
import { innerPixel } from "./rle.js";

const LONGEST_SIDE = 1600; // outlines are traced at no more than about this
const TICK = 9; // radius of the mark of a kept mask, in pixels of the style sheet
// Where in a mask its mark may be, as the share of its pixels to the left.
const TICK_PLACES = [0.5, 0.35, 0.65, 0.2, 0.8, 0.1, 0.9];

/** The colour of a mask: hues by the golden ratio, so that neighbours in rank differ most. */
export function colour(mask, alpha = 1) {
  const hue = (205 + mask.id * 137.508) % 360;
  const light = [60, 68, 54][Math.floor(mask.id / 6) % 3];
  return `hsl(${hue.toFixed(1)} 90% ${light}% / ${alpha})`;
}

export class View {
  constructor(stage) {
    this.stage = stage;
    this.layers = {}; // photo; masks that are shown; those that are kept; the one that is pointed at
    for (const name of ["photo", "masks", "kept", "current"]) this.layers[name] = stage.querySelector(`canvas.${name}`);
    this.image = null;
    this.paths = new Map();
    this.shown = [];
    this.kept = new Set();
    this.current = null;
    new ResizeObserver(() => this.resize()).observe(stage);
  }

  /** Show a photo (anything that a canvas can draw) of a given size in its own pixels; no masks. */
  setImage(image, width, height) {
    this.image = image;
    this.size = [width, height];
    this.step = Math.max(1, Math.round(Math.max(width, height) / LONGEST_SIDE));
    this.paths.clear();
    this.shown = [];
    this.kept = new Set();
    this.setCurrent(null);
    this.stage.closest("section").style.setProperty("--ratio", String(width / height));
    this.resize();
  }

  /** shown: masks; kept: a set of ids; all: every mask, for kept ones that are not among the shown. */
  setMasks(shown, kept, all) {
    this.kept = kept;
    const others = [...kept].map((id) => all[id]).filter((mask) => !shown.includes(mask));
    // Large ones first: a part in front of a whole stays visible.
    this.shown = [...shown, ...others].sort((a, b) => b.area - a.area);
    this.drawMasks();
  }

  setCurrent(mask) {
    if (mask === this.current) return;
    this.current = mask;
    this.stage.classList.toggle("pointing", mask !== null); // the others fade
    this.drawCurrent();
  }

  /** The pixel of the photo under a pointer event, [x, y]; null beside the photo. */
  pixelAt(event) {
    const box = this.layers.photo.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.size[0]);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.size[1]);
    return x >= 0 && y >= 0 && x < this.size[0] && y < this.size[1] ? [x, y] : null;
  }

  path(mask) {
    if (!this.paths.has(mask.id)) this.paths.set(mask.id, outline(mask, this.size[1], this.step));
    return this.paths.get(mask.id);
  }

  resize() {
    if (!this.image) return;
    const box = this.stage.getBoundingClientRect();
    const dense = Math.min(window.devicePixelRatio || 1, 2);
    const [width, height] = [Math.round(box.width * dense), Math.round(box.height * dense)];
    if (width < 1 || height < 1) return;
    for (const layer of Object.values(this.layers)) {
      layer.width = width;
      layer.height = height;
    }
    this.scale = width / this.size[0]; // canvas pixels for one of the photo
    this.line = dense / this.scale; // one pixel of the style sheet, in pixels of the photo
    const context = this.layers.photo.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(this.image, 0, 0, width, height);
    this.drawMasks();
    this.drawCurrent();
  }

  begin(layer) {
    const { width, height } = this.layers[layer];
    const context = this.layers[layer].getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.setTransform(this.scale, 0, 0, height / this.size[1], 0, 0);
    context.lineJoin = "round";
    return context;
  }

  drawMasks() {
    if (!this.scale) return;
    const layers = [this.begin("masks"), this.begin("kept")];
    for (const mask of this.shown) {
      const kept = this.kept.has(mask.id);
      const context = layers[Number(kept)];
      const path = this.path(mask);
      context.fillStyle = colour(mask, kept ? 0.5 : 0.16);
      context.fill(path, "evenodd");
      if (kept) {
        context.lineWidth = 4.5 * this.line;
        context.strokeStyle = "#fff";
        context.stroke(path);
      }
      context.lineWidth = (kept ? 2.25 : 1.25) * this.line;
      context.strokeStyle = colour(mask, kept ? 1 : 0.85);
      context.stroke(path);
    }
    this.drawTicks(layers[1]);
  }

  /** The marks of the kept masks, which more than their colour tells from the others; side by side where they can be. */
  drawTicks(context) {
    const placed = [];
    const apart = 2.2 * TICK * this.line;
    const isFree = ([x, y]) => placed.every(([a, b]) => Math.hypot(a - x, b - y) >= apart);
    for (const mask of this.shown) {
      if (!this.kept.has(mask.id)) continue;
      const places = TICK_PLACES.map((part) => innerPixel(mask.runs, mask.area, this.size[1], part));
      const place = places.find(isFree) ?? places[0];
      placed.push(place);
      this.drawTick(context, place[0] + 0.5, place[1] + 0.5);
    }
  }

  drawTick(context, x, y) {
    const unit = this.line;
    context.beginPath();
    context.arc(x, y, TICK * unit, 0, 2 * Math.PI);
    context.fillStyle = "#fff";
    context.fill();
    context.lineWidth = 2 * unit;
    context.strokeStyle = "#14171c";
    context.stroke();
    context.beginPath();
    context.moveTo(x - 4 * unit, y);
    context.lineTo(x - 1 * unit, y + 3.5 * unit);
    context.lineTo(x + 4.5 * unit, y - 3.5 * unit);
    context.lineWidth = 2.25 * unit;
    context.stroke();
  }

  drawCurrent() {
    if (!this.scale) return;
    const context = this.begin("current");
    if (!this.current) return;
    const path = this.path(this.current);
    context.fillStyle = colour(this.current, 0.55);
    context.fill(path, "evenodd");
    context.lineWidth = 5 * this.line;
    context.strokeStyle = "rgb(10 12 16 / 0.75)"; // so that the white line shows on white ground
    context.stroke(path);
    context.lineWidth = 2.5 * this.line;
    context.strokeStyle = "#fff";
    context.stroke(path);
  }

  /** A small picture of a mask, cut out of the photo, for lists. */
  thumbnail(mask, side) {
    const canvas = document.createElement("canvas");
    const dense = Math.min(window.devicePixelRatio || 1, 2);
    canvas.width = canvas.height = Math.round(side * dense);
    const [left, top, right, bottom] = mask.box;
    const scale = (0.88 * canvas.width) / Math.max(right - left, bottom - top);
    const context = canvas.getContext("2d");
    context.translate(canvas.width / 2, canvas.height / 2);
    context.scale(scale, scale);
    context.translate(-(left + right) / 2, -(top + bottom) / 2);
    const path = this.path(mask);
    context.save();
    context.clip(path, "evenodd");
    const across = this.image.width / this.size[0]; // the picture may be a smaller copy of the photo
    context.drawImage(
      this.image,
      left * across, top * across, (right - left) * across, (bottom - top) * across,
      left, top, right - left, bottom - top,
    );
    context.restore();
    context.lineWidth = (1.5 * dense) / scale;
    context.strokeStyle = colour(mask);
    context.stroke(path);
    return canvas;
  }
}
