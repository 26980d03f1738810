// The masks that are kept: a set with undo, and its list of small pictures.

import { scoreText } from "./sliders.js";

const PICTURES = 60; // drawn at most; "keep all" may keep a thousand
const SIDE = 64; // of a picture, about as in style.css

export class Kept {
  /** list: the element for the pictures; onChange(); onPoint(mask): a picture is pointed at. */
  constructor({ list, view, onChange, onPoint }) {
    Object.assign(this, { list, view, onChange, onPoint });
    this.all = [];
    this.ids = new Set();
    this.past = [];
    this.items = new Map(); // by id, so that what is there already is not drawn again
  }

  /** Start anew, with the masks of another picture. */
  reset(all) {
    this.all = all;
    this.ids = new Set();
    this.past = [];
    this.items.clear();
    this.changed();
  }

  has(mask) {
    return this.ids.has(mask.id);
  }

  /** The kept ones, best first. */
  masks() {
    return this.all.filter((mask) => this.ids.has(mask.id));
  }

  toggle(mask) {
    const next = new Set(this.ids);
    if (!next.delete(mask.id)) next.add(mask.id);
    this.set(next);
  }

  add(masks) {
    this.set(new Set([...this.ids, ...masks.map((mask) => mask.id)]));
  }

  clear() {
    this.set(new Set());
  }

  get canUndo() {
    return this.past.length > 0;
  }

  undo() {
    if (!this.canUndo) return;
    this.ids = this.past.pop();
    this.changed();
  }

  set(next) {
    if (next.size === this.ids.size && [...next].every((id) => this.ids.has(id))) return;
    this.past.push(this.ids);
    this.ids = next;
    this.changed();
  }

  changed() {
    const kept = this.masks();
    const items = kept.slice(0, PICTURES).map((mask) => this.item(mask));
    if (kept.length > PICTURES) {
      const more = document.createElement("li");
      more.className = "more quiet";
      more.textContent = `and ${kept.length - PICTURES} more`;
      items.push(more);
    }
    const focused = this.list.contains(document.activeElement) ? document.activeElement.closest("li") : null;
    const place = focused ? [...this.list.children].indexOf(focused) : -1;
    this.list.replaceChildren(...items);
    // The focus does not fall out of the list with the picture that it was on.
    if (place >= 0) this.list.children[Math.min(place, items.length - 1)]?.querySelector("button")?.focus();
    this.onChange();
  }

  item(mask) {
    let item = this.items.get(mask.id);
    if (item) return item;
    item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Remove";
    button.setAttribute("aria-label", `Mask ${mask.id + 1}, score ${scoreText(mask.score)}: remove`);
    button.append(this.view.thumbnail(mask, SIDE));
    button.addEventListener("click", () => this.toggle(mask));
    button.addEventListener("pointerenter", () => this.onPoint(mask));
    button.addEventListener("focus", () => this.onPoint(mask));
    item.append(button);
    this.items.set(mask.id, item);
    return item;
  }
}
