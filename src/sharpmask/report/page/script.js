"use strict";
// The page has two views: the gallery (address #) and one photo (#photo=NUMBER&rank=RANK). `report` is what the gallery
// shows; a photo's own data is parsed when it is opened. Sides: w h are those of the shown photo, in its pixels.

const $ = (id) => document.getElementById(id);
const parse = (id) => JSON.parse($(id).textContent);
const number = (value) => value.toLocaleString("en-US");
const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

/** A new element with attributes and children; text is never read as HTML. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const report = parse("report");
const compared = report.annotations !== null;
const state = { limit: report.limits.length - 1, photo: -1, rank: 1, all: false, objects: true, object: -1, hover: -1 };
let shown = []; // numbers of the photos in the gallery, in their order
let view = null; // the open photo: its data with the decoded shapes

// ---- masks --------------------------------------------------------------------------------------------------------

/** COCO's compressed run lengths: numbers of 5-bit groups, each from the fourth on the difference to the one two
 * before. They count pixels column by column, zeros first. */
function runLengths(text) {
  const runs = [];
  for (let place = 0; place < text.length; ) {
    let value = 0, shift = 0, group;
    do {
      group = text.charCodeAt(place++) - 48;
      value |= (group & 31) << shift;
      shift += 5;
    } while (group & 32);
    if (group & 16) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
}

/** The part of a mask inside its box: {x, y, w, h, inside: Uint8Array row by row}. */
function decodeMask(counts, width, height) {
  const spans = [];
  let start = 0, x0 = width, y0 = height, x1 = 0, y1 = 0;
  runLengths(counts).forEach((length, index) => {
    if (index % 2 && length) {
      for (let begin = start; begin < start + length; ) {
        const column = Math.floor(begin / height);
        const end = Math.min(start + length, (column + 1) * height);
        const top = begin - column * height, bottom = end - column * height;
        spans.push([column, top, bottom]);
        x0 = Math.min(x0, column), x1 = Math.max(x1, column + 1), y0 = Math.min(y0, top), y1 = Math.max(y1, bottom);
        begin = end;
      }
    }
    start += length;
  });
  if (!spans.length) return { x: 0, y: 0, w: 0, h: 0, inside: new Uint8Array(0) };
  const w = x1 - x0, h = y1 - y0, inside = new Uint8Array(w * h);
  for (const [column, top, bottom] of spans)
    for (let row = top; row < bottom; row++) inside[(row - y0) * w + column - x0] = 1;
  return { x: x0, y: y0, w, h, inside };
}

/** A box as a mask of the shown photo. */
function decodeBox([x, y, width, height], scale) {
  const left = Math.round(x * scale), top = Math.round(y * scale);
  const w = Math.max(1, Math.round((x + width) * scale) - left), h = Math.max(1, Math.round((y + height) * scale) - top);
  return { x: left, y: top, w, h, inside: new Uint8Array(w * h).fill(1), box: true };
}

function shape(item) {
  item.shape ??= item.counts === undefined
    ? decodeBox(item.box, view.width / report.photos[state.photo].width)
    : decodeMask(item.counts, view.width, view.height);
  return item.shape;
}

const holds = (mask, x, y) =>
  x >= mask.x && y >= mask.y && x < mask.x + mask.w && y < mask.y + mask.h &&
  mask.inside[(y - mask.y) * mask.w + x - mask.x] === 1;

/** Bright colours that differ most between neighbouring ranks. */
function colour(rank) {
  const hue = (0.58 + 0.61803398875 * rank) % 1, channel = (shift) => {
    const place = ((hue + shift) % 1) * 6;
    return Math.round(255 * (1 - 0.85 * Math.max(0, Math.min(1, Math.min(place, 4 - place)))));
  };
  return [channel(0 + 1 / 3), channel(0), channel(2 / 3)];
}

// ---- drawing ------------------------------------------------------------------------------------------------------

function blend(pixels, place, [red, green, blue], share) {
  // `pixels` is the empty drawing over the photo: colours of several masks mix, and the drawing gets more opaque.
  const below = pixels[place + 3] / 255, alpha = share + below * (1 - share);
  const mix = (offset, value) => {
    pixels[place + offset] = (value * share + pixels[place + offset] * below * (1 - share)) / alpha;
  };
  mix(0, red), mix(1, green), mix(2, blue);
  pixels[place + 3] = alpha * 255;
}

function fill(pixels, mask, tint, share) {
  for (let y = 0; y < mask.h; y++) for (let x = 0; x < mask.w; x++) {
    if (!mask.inside[y * mask.w + x]) continue;
    const column = mask.x + x, row = mask.y + y;
    if (column >= 0 && row >= 0 && column < view.width && row < view.height)
      blend(pixels, (row * view.width + column) * 4, tint, share);
  }
}

/** Colour the mask's pixels within `thick` of its outside; the photo's border counts as outside. */
function outline(pixels, mask, tint, thick) {
  const at = (x, y) => x >= 0 && y >= 0 && x < mask.w && y < mask.h && mask.inside[y * mask.w + x];
  for (let y = 0; y < mask.h; y++) for (let x = 0; x < mask.w; x++) {
    if (!mask.inside[y * mask.w + x]) continue;
    let edge = false;
    for (let d = 1; d <= thick && !edge; d++) edge = !at(x - d, y) || !at(x + d, y) || !at(x, y - d) || !at(x, y + d);
    const column = mask.x + x, row = mask.y + y;
    if (edge && column >= 0 && row >= 0 && column < view.width && row < view.height)
      blend(pixels, (row * view.width + column) * 4, tint, 1);
  }
}

const isMissed = (object) => object.ious[state.limit] <= report.foundIou;
const MISSED = [224, 0, 32], FOUND = [40, 220, 90], BEST_MATCH = [40, 110, 255];

/** The proposals to draw: those up to the rank, or the one of that rank, or the chosen object's best. */
function drawn() {
  if (state.object >= 0) {
    const rank = view.objects[state.object].ranks[state.limit];
    return view.proposals.filter((proposal) => proposal.rank === rank);
  }
  return view.ranked.slice(state.all ? 0 : state.rank - 1, state.rank);
}

function draw() {
  const canvas = $("drawing"), context = canvas.getContext("2d");
  const image = context.createImageData(view.width, view.height), pixels = image.data;
  const thick = Math.max(1, Math.round(Math.max(view.width, view.height) / 400));
  const proposals = drawn();
  for (const proposal of [...proposals].sort((a, b) => b.area - a.area)) {
    const hovered = proposal.rank === state.hover;
    const tint = state.object >= 0 ? BEST_MATCH : colour(proposal.rank);
    if (!shape(proposal).box || hovered) fill(pixels, shape(proposal), tint, hovered ? 0.6 : 0.4);
    outline(pixels, shape(proposal), tint, hovered ? thick + 1 : thick);
  }
  const objects = state.object >= 0 ? [view.objects[state.object]] : state.objects ? view.objects : [];
  for (const object of [...objects].sort((a, b) => isMissed(a) - isMissed(b)))
    outline(pixels, shape(object), isMissed(object) ? MISSED : FOUND, thick + 1);
  context.putImageData(image, 0, 0);
  describe(proposals);
}

function describe(proposals) {
  const total = view.ranked.length;
  $("rank-text").textContent = total ? `${number(state.rank)} of ${number(total)}` : "no proposals";
  const proposal = proposals.find((item) => item.rank === state.hover) ?? proposals[proposals.length - 1];
  let text = "";
  if (proposal) {
    text = `rank ${number(proposal.rank)} · score ${proposal.score} · ${plural(proposal.area, "pixel")}`;
    const chosen = state.object >= 0 ? [view.objects[state.object]] : view.objects;
    for (const object of chosen) {
      const iou = object.ious[state.limit];
      if (object.ranks[state.limit] === proposal.rank && iou > 0.1)
        text += ` · best match of ${object.category}, IoU ${iou.toFixed(2)}`;
    }
  }
  if (state.object >= 0 && !proposal) text = "no proposal overlaps this object";
  $("about").textContent = text;
  $("drawing").setAttribute("aria-label", text || "no mask");
}

// ---- one photo ----------------------------------------------------------------------------------------------------

function openPhoto(index) {
  if (state.photo !== index) {
    state.photo = index;
    state.object = state.hover = -1;
    view = parse(`photo-${index}`);
    view.ranked = view.proposals.filter((proposal) => proposal.rank <= report.top); // without later best matches
    const entry = report.photos[index];
    $("picture").src = view.address;
    $("picture").alt = entry.name;
    $("picture").width = $("drawing").width = view.width;
    $("picture").height = $("drawing").height = view.height;
    // A small photo is enlarged, up to three times.
    $("stage").style.width = `${Math.round(Math.max(1, Math.min(3, 640 / Math.max(view.width, view.height))) * view.width)}px`;
    $("name").textContent = entry.name;
    $("size").textContent = `${entry.width} × ${entry.height}, ${plural(entry.proposals, "proposal")}`;
    $("rank").max = Math.max(1, view.ranked.length);
    $("rank").disabled = !view.ranked.length;
  }
  const place = shown.indexOf(index);
  $("previous").disabled = place <= 0;
  $("next").disabled = place < 0 || place === shown.length - 1;
  listObjects();
  setRank(state.rank);
}

function setRank(rank) {
  state.rank = Math.max(1, Math.min(view.ranked.length || 1, rank));
  $("rank").value = state.rank;
  history.replaceState(null, "", `#photo=${state.photo}&rank=${state.rank}`);
  draw();
}

function listObjects() {
  $("objects").replaceChildren(...view.objects.map((object, index) => {
    const missed = isMissed(object), rank = object.ranks[state.limit];
    const fit = rank ? `best IoU ${object.ious[state.limit].toFixed(2)} at rank ${number(rank)}` : "nothing overlaps it";
    const button = make("button", {
      type: "button", class: missed ? "is-missed" : "is-found", "aria-pressed": state.object === index,
    }, make("span", { class: missed ? "missed-text" : "" }, `${object.category}${missed ? ": missed" : ""}`),
    make("small", {}, `${fit} · ${plural(object.area, "pixel")}`));
    button.addEventListener("click", () => chooseObject(index));
    return make("li", {}, button);
  }));
}

function chooseObject(index) {
  state.object = state.object === index ? -1 : index;
  state.hover = -1;
  listObjects();
  draw();
  if (index >= 0) $("objects").children[index].firstChild.focus();
}

/** Show masks by rank again, after an object's best match was shown. */
function leaveObject() {
  if (state.object < 0) return;
  state.object = -1;
  listObjects();
}

function under(event) {
  const area = $("drawing").getBoundingClientRect();
  const x = Math.floor((event.clientX - area.left) * view.width / area.width);
  const y = Math.floor((event.clientY - area.top) * view.height / area.height);
  const hit = drawn().filter((proposal) => holds(shape(proposal), x, y)).sort((a, b) => a.area - b.area);
  return hit.length ? hit[0].rank : -1;
}

function hover(rank) {
  if (rank === state.hover) return;
  state.hover = rank;
  draw();
}

function step(move) {
  const place = shown.indexOf(state.photo) + move;
  if (shown[place] !== undefined) go(`#photo=${shown[place]}&rank=1`);
}

// ---- gallery ------------------------------------------------------------------------------------------------------

const ORDERS = [
  ["as listed", () => 0],
  ["most missed objects first", (a, b) => b.missed[state.limit] - a.missed[state.limit]],
  ["worst mean IoU first", (a, b) => (a.fit[state.limit] ?? 2) - (b.fit[state.limit] ?? 2)],
  ["file name", (a, b) => a.name.localeCompare(b.name)],
];

function listPhotos() {
  const wanted = $("find").value.toLowerCase(), order = ORDERS[$("order").value][1];
  shown = report.photos.map((_, index) => index).filter((index) => {
    const entry = report.photos[index];
    return entry.name.toLowerCase().includes(wanted) && !($("only-missed").checked && !entry.missed[state.limit]);
  });
  shown.sort((a, b) => order(report.photos[a], report.photos[b]) || a - b);
  $("shown").textContent = `${number(shown.length)} of ${plural(report.photos.length, "photo")}`;
  $("cards").replaceChildren(...shown.map((index) => {
    const entry = report.photos[index], missed = entry.missed[state.limit];
    const text = make("div", {}, entry.name, make("br"), plural(entry.proposals, "proposal"));
    if (compared) {
      const objects = !entry.objects ? "no objects"
        : missed ? `${missed} of ${plural(entry.objects, "object")} missed` : `all ${plural(entry.objects, "object")} found`;
      text.append(make("br"), make("span", { class: missed ? "missed-text" : "found-text" }, objects));
    }
    const picture = make("img", { src: entry.thumbnail, alt: "", loading: "lazy", decoding: "async" });
    return make("li", {}, make("a", { href: `#photo=${index}&rank=1` }, picture, text));
  }));
}

function figureTable({ title, columns, rows }) {
  const cells = (row) => row.map((cell, place) => make(place ? "td" : "th", place ? {} : { scope: "row" }, cell));
  return make("table", {}, make("caption", {}, `Average recall of ${title}`),
    make("thead", {}, make("tr", {}, make("th"), ...columns.map((column) => make("th", { scope: "col" }, column)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row)))));
}

/** AR against the number of proposals, on a logarithmic axis from 1 to 1,000. */
function figureCurve({ title, curves }) {
  const width = 380, height = 250, left = 42, bottom = 34, top = 22, right = 24;
  const most = Math.max(0.1, ...Object.values(curves).flat().map(([, value]) => value));
  const tickStep = most > 0.5 ? 0.2 : 0.1, ceiling = Math.ceil(most / tickStep) * tickStep;
  const x = (count) => left + (width - left - right) * Math.log10(count) / 3;
  const y = (value) => height - bottom - (height - bottom - top) * value / ceiling;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": `AR of ${title} against the number of proposals` });
  for (let tick = 0; tick <= ceiling + 1e-9; tick += tickStep) {
    svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
    svg.append(make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, `${Math.round(tick * 100)}`));
  }
  for (const count of [1, 10, 100, 1000]) {
    svg.append(make("line", { class: "grid", x1: x(count), x2: x(count), y1: top, y2: height - bottom }));
    svg.append(make("text", { x: x(count), y: height - bottom + 15, "text-anchor": "middle" }, number(count)));
  }
  svg.append(make("text", { x: x(31.6), y: height - 4, "text-anchor": "middle" }, `proposals (${title})`));
  svg.append(make("text", { x: 4, y: 13 }, "AR, percent"));
  const tints = { all: "#0b62d6", small: "#d1495b", medium: "#d98e04", large: "#2a9d63" };
  Object.entries(curves).forEach(([area, points], place) => {
    const path = points.map(([count, value], index) => `${index ? "L" : "M"}${x(count).toFixed(1)} ${y(value).toFixed(1)}`);
    svg.append(make("path", { d: path.join(""), stroke: tints[area] }));
    const label = make("text", { x: left + 10, y: top + 16 + 14 * place }, area);
    label.style.fill = tints[area];
    svg.append(label);
  });
  return svg;
}

// ---- start --------------------------------------------------------------------------------------------------------

/** Show what the address asks for, unless it is shown already. */
function route() {
  const match = /^#photo=(\d+)&rank=(\d+)$/.exec(location.hash);
  const open = match !== null && Number(match[1]) < report.photos.length;
  const [index, rank] = open ? [Number(match[1]), Number(match[2])] : [-1, -1];
  if (open ? !$("photo").hidden && index === state.photo && rank === state.rank : !$("gallery").hidden) return;
  $("gallery").hidden = open;
  $("photo").hidden = !open;
  if (open) {
    state.rank = rank;
    openPhoto(index);
  } else if (state.photo >= 0) {
    const place = shown.indexOf(state.photo);
    if (place >= 0) $("cards").children[place].firstChild.focus();
  }
}

/** To another address at once: browsers tell of it only later, and a key that is pressed until then would be lost. */
function go(address) {
  location.hash = address;
  route();
}

/** A plain click on a photo of the gallery; one with Ctrl or Shift is the browser's own. */
function followLink(event) {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.hash);
}

function setLimit(value) {
  state.limit = Number(value);
  document.querySelectorAll(".limit").forEach((select) => (select.value = value));
  listPhotos();
  if (view) listObjects();
  if (!$("photo").hidden) draw();
}

function start() {
  document.body.classList.toggle("plain", !compared);
  document.title = `sharpmask: ${report.proposals}`;
  $("source").textContent = report.proposals;
  $("found-iou").textContent = report.foundIou;
  $("summary").textContent = `${plural(report.count, "proposal")} of ${plural(report.listed, "photo")}` +
    (compared ? `, compared with ${plural(report.objects, "object")} of ${report.annotations}: ` +
      `${number(report.missed)} missed` : "") + `. Written by sharpmask ${report.version}.`;
  $("notes").append(...report.notes.map((note) => make("li", {}, note)));
  for (const figure of report.figures)
    $("figures").append(make("div", {}, figureTable(figure)), make("div", {}, figureCurve(figure)));
  if (report.figures.length) $("figures").append(make("p", {}, report.figuresNote));
  document.querySelectorAll(".limit").forEach((select) => {
    select.append(...report.limits.map((limit, index) => make("option", { value: index }, number(limit))));
    select.addEventListener("change", () => setLimit(select.value));
  });
  ORDERS.forEach(([name], index) => {
    if (compared || index === 0 || index === 3) $("order").append(make("option", { value: index }, name));
  });
  for (const id of ["find", "order", "only-missed"]) $(id).addEventListener("input", listPhotos);
  $("cards").addEventListener("click", followLink);
  $("back").addEventListener("click", () => go("#"));
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("rank").addEventListener("input", () => (leaveObject(), setRank(Number($("rank").value))));
  $("all").addEventListener("input", () => ((state.all = $("all").checked), leaveObject(), draw()));
  $("objects-on").addEventListener("input", () => ((state.objects = $("objects-on").checked), draw()));
  $("drawing").addEventListener("mousemove", (event) => hover(under(event)));
  $("drawing").addEventListener("mouseleave", () => hover(-1));
  $("drawing").addEventListener("click", (event) => {
    const rank = under(event);
    if (rank > 0 && rank <= view.ranked.length) leaveObject(), setRank(rank);
  });
  window.addEventListener("hashchange", route);
  document.addEventListener("keydown", onKey);
  setLimit(state.limit);
  route();
}

function onKey(event) {
  const typing = ["INPUT", "SELECT"].includes(event.target.tagName) && event.target.type !== "checkbox";
  if ($("photo").hidden || event.ctrlKey || event.altKey || event.metaKey || typing) return;
  const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
  if (event.key in moves) leaveObject(), setRank(state.rank + moves[event.key]);
  else if (event.key === "a") $("all").click();
  else if (event.key === "o") $("objects-on").click();
  else if (event.key === "n") step(1);
  else if (event.key === "p") step(-1);
  else if (event.key === "Escape") go("#");
  else return;
  event.preventDefault();
}

start();
