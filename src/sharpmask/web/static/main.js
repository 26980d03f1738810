// The page: what is loaded, shown, pointed at and kept, and what each control does about it.

import { exportMasks, getInfo, getPicture, propose } from "./api.js";
import { Kept } from "./kept.js";
import { masksAt, Overlaps, choose, readMasks } from "./masks.js";
import { readFilters, resetSliders, scoreText, setScores, showValues } from "./sliders.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);

const FORMAT_TITLES = {
  coco: "COCO results (RLE)",
  "coco-polygons": "COCO polygons",
  cvat: "CVAT for images 1.1",
  geojson: "GeoJSON, in pixels",
  geopackage: "GeoPackage, in pixels",
  "label-map": "Label map (16-bit PNG)",
  "label-studio": "Label Studio",
  labelme: "labelme",
  parquet: "Parquet table",
  yolo: "YOLO segmentation",
};

const view = new View($("stage"));
const kept = new Kept({ list: $("kept"), view, onChange: keptChanged, onPoint: (mask) => setCurrent(mask) });

let info = null; // the server's limits, once known
let file = null; // what is shown …
let image = null; // … and how the server describes it: file_name, width, height
let masks = []; // all that the server found, best first
let overlaps = null;
let shown = []; // those that the sliders let through, best first
let current = null; // the mask pointed at
let stack = []; // the shown masks at the point of the current one, the smallest first
let running = null; // AbortController of the request under way

// ---------------------------------------------------------------- loading

async function open(chosen) {
  if (!chosen) return;
  if (info && chosen.size > info.max_body) {
    say(`${chosen.name}: larger than the limit of ${Math.floor(info.max_body / 2 ** 20)} MiB.`, "bad");
    return;
  }
  await search(chosen);
}

/** Find the masks of a file and show them. What is there and kept stays until the new photo or its masks are. */
async function search(chosen) {
  running?.abort();
  const mine = (running = new AbortController());
  const { signal } = mine;
  // Who chose the picture by keyboard goes on in it.
  const byKeyboard = document.activeElement?.matches("#choose:focus-visible, #another:focus-visible");
  say("");
  const clock = startClock();
  try {
    // The photo appears at once; the masks follow.
    let picture = chosen === file ? view.image : await createImageBitmap(chosen).catch(() => null);
    if (signal.aborted) return;
    if (info && picture && picture.width * picture.height > info.max_pixels) {
      throw new Error(`${chosen.name}: larger than the limit of ${info.max_pixels / 1e6} megapixels.`);
    }
    if (picture && chosen !== file) {
      forget();
      file = chosen;
      showPhoto(picture, picture.width, picture.height);
    }
    if (picture && byKeyboard) $("stage").focus({ preventScroll: true });
    const settings = Object.fromEntries(new FormData($("settings")));
    const found = await propose(chosen, settings, { signal, onBusy: clock.busy });
    const { width, height } = found.image;
    if (!picture || view.size[0] !== width || view.size[1] !== height) {
      // A format that the browser does not know, or that it turns another way.
      picture = await createImageBitmap(await getPicture(chosen, signal));
      if (signal.aborted) return;
      forget();
      file = chosen;
      showPhoto(picture, width, height);
    }
    setCurrent(null);
    image = { ...found.image, file_name: file.name || "image.png" };
    masks = readMasks(found);
    overlaps = new Overlaps(masks);
    kept.reset(masks);
    $("count").max = Math.max($("count").defaultValue, masks.length); // not below what the next picture may need
    setScores(masks);
    filter();
    say(summary(), "spoken");
  } catch (error) {
    if (!signal.aborted) say(error.message, "bad");
  } finally {
    clock.stop();
    if (running === mine) {
      // else a later search has begun, and the sign is its own
      running = null;
      showWorking(false);
      if (!view.image) showStart();
    }
  }
}

function showPhoto(picture, width, height) {
  $("drop").hidden = true;
  for (const id of ["frame", "bar", "keys", "panel", "another"]) $(id).hidden = false;
  view.setImage(picture, width, height);
}

function showStart() {
  $("drop").hidden = false;
  for (const id of ["frame", "bar", "keys", "panel", "another"]) $(id).hidden = true;
}

/** The masks of the last search are gone. */
function forget() {
  image = null;
  masks = [];
  overlaps = null;
  kept.reset(masks);
  filter();
}

function showWorking(on) {
  $("working").hidden = !on;
  $("drop").classList.toggle("busy", on);
  $("stage").setAttribute("aria-busy", String(on));
}

/** Shows that the server works, and for how long. */
function startClock() {
  const begin = performance.now();
  let text = "Searching";
  const tick = () => {
    const seconds = Math.floor((performance.now() - begin) / 1000);
    $("progress").textContent = seconds < 2 ? `${text} …` : `${text} … ${seconds} s`;
  };
  const timer = setInterval(tick, 500);
  tick();
  showWorking(true);
  return {
    busy: (seconds) => {
      text = `The server is busy, asking again in ${seconds} s`;
      tick();
    },
    stop: () => clearInterval(timer),
  };
}

// ---------------------------------------------------------------- showing

/** Apply the sliders. */
function filter() {
  showValues(image);
  shown = overlaps ? choose(masks, overlaps, readFilters(image)) : [];
  $("keep-all").disabled = shown.length === 0;
  $("shown").textContent = masks.length ? `${shown.length} of ${masks.length}` : "";
  if (current && !shown.includes(current) && !kept.has(current)) setCurrent(null);
  stack = stack.filter((mask) => shown.includes(mask) || kept.has(mask));
  draw();
}

function draw() {
  view.setMasks(shown, kept.ids, masks);
  listOptions();
  describe();
}

/** Masks that can be pointed at, best first. */
function reachable() {
  return [...new Set([...shown, ...kept.masks()])].sort((a, b) => a.id - b.id);
}

/** The list box's options, for those who do not see the picture. */
function listOptions() {
  const options = reachable().map((mask) => {
    const option = document.createElement("div");
    option.id = `mask-${mask.id}`;
    option.setAttribute("role", "option");
    option.setAttribute("aria-selected", String(kept.has(mask)));
    option.textContent = spoken(mask);
    return option;
  });
  $("options").replaceChildren(...options);
}

function spoken(mask) {
  const percent = (100 * mask.area) / (image.width * image.height);
  const size = percent >= 10 ? percent.toFixed(0) : percent.toPrecision(2);
  return `Mask ${mask.id + 1}, score ${scoreText(mask.score)}, ${size} % of the picture`;
}

function summary() {
  return masks.length ? `${masks.length} masks found, ${shown.length} shown. Click one to keep it.` : "No masks found.";
}

/** The line below the picture, and its buttons. */
function describe() {
  const place = stack.indexOf(current);
  $("smaller").disabled = place <= 0;
  $("larger").disabled = place < 0 || place === stack.length - 1;
  $("keep").disabled = current === null;
  $("keep").textContent = current && kept.has(current) ? "Remove" : "Keep";
  if (current) {
    const among = stack.length > 1 ? ` · ${place + 1} of ${stack.length} here` : "";
    $("about").textContent = spoken(current).replaceAll(", ", " · ").replace(" of the picture", "") + among;
    $("stage").setAttribute("aria-activedescendant", `mask-${current.id}`);
  } else {
    $("about").textContent = image ? summary() : "";
    $("stage").removeAttribute("aria-activedescendant");
  }
}

// ---------------------------------------------------------------- pointing and keeping

/** Point at a mask: at a given pixel, else at its middle. */
function setCurrent(mask, point = mask?.middle) {
  current = mask;
  stack = mask ? masksAt(reachable(), ...point, image.height) : [];
  if (mask && !stack.includes(mask)) stack = [mask, ...stack];
  view.setCurrent(current);
  describe();
}

function pointAt(event) {
  if (!image) return;
  const point = view.pixelAt(event);
  const there = point ? masksAt(reachable(), ...point, image.height) : [];
  // The smallest, but one that was chosen with the arrows stays while the same masks lie under the pointer.
  const same = there.length === stack.length && there.every((mask, i) => mask === stack[i]);
  setCurrent(same && current ? current : (there[0] ?? null), point);
}

/** To the next larger (+1) or smaller (-1) mask at the same place. */
function resize(step) {
  const next = stack[stack.indexOf(current) + step];
  if (!current || !next) return;
  const here = stack;
  setCurrent(next);
  stack = here;
  describe();
}

/** To the mask so many ranks further on. */
function move(step) {
  const list = reachable();
  if (!list.length) return;
  const at = list.indexOf(current);
  const next = at < 0 ? (step > 0 ? 0 : list.length - 1) : Math.min(Math.max(at + step, 0), list.length - 1);
  setCurrent(list[next]);
}

function keptChanged() {
  const number = kept.ids.size;
  $("number").textContent = String(number);
  $("none").hidden = number > 0;
  $("clear").disabled = number === 0;
  $("undo").disabled = !kept.canUndo;
  $("export-button").disabled = number === 0;
  $("export-button").textContent = number === 0 ? "Export" : number === 1 ? "Export 1 mask" : `Export ${number} masks`;
  if (image) draw();
}

const KEYS = {
  ArrowRight: () => move(1),
  ArrowLeft: () => move(-1),
  ArrowUp: () => (current ? resize(1) : move(1)),
  ArrowDown: () => (current ? resize(-1) : move(1)),
  PageDown: () => move(10),
  PageUp: () => move(-10),
  Home: () => move(-Infinity),
  End: () => move(Infinity),
  " ": () => current && kept.toggle(current),
  Enter: () => current && kept.toggle(current),
  Delete: () => current && kept.has(current) && kept.toggle(current),
  Escape: () => (current ? setCurrent(null) : kept.clear()),
};

// The keys work in the picture, and as long as nothing else has the focus.
addEventListener("keydown", (event) => {
  if (!image || (event.target !== $("stage") && event.target !== document.body)) return;
  const command = event.ctrlKey || event.metaKey;
  if (command && event.key.toLowerCase() === "a") kept.add(shown);
  else if (command && event.key.toLowerCase() === "z") kept.undo();
  else if (!command && !event.altKey && KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
});

$("stage").addEventListener("pointermove", (event) => {
  if (event.pointerType !== "touch") pointAt(event);
});
$("stage").addEventListener("click", (event) => {
  pointAt(event); // a finger has not hovered before
  if (current) kept.toggle(current);
});
$("smaller").addEventListener("click", () => resize(-1));
$("larger").addEventListener("click", () => resize(1));
$("keep").addEventListener("click", () => current && kept.toggle(current));
$("keep-all").addEventListener("click", () => kept.add(shown));
$("clear").addEventListener("click", () => kept.clear());
$("undo").addEventListener("click", () => kept.undo());

// ---------------------------------------------------------------- settings and export

let waiting = 0;
$("panel").addEventListener("input", (event) => {
  if (event.target.type !== "range" || waiting) return;
  waiting = requestAnimationFrame(() => {
    waiting = 0;
    filter();
  });
});

$("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  if (file) search(file);
});

function showExportFields() {
  for (const element of $("export").querySelectorAll("[data-for]")) {
    element.hidden = !element.dataset.for.split(" ").includes($("format").value);
  }
}
$("format").addEventListener("change", showExportFields);

$("export").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { format, shapes, ...options } = Object.fromEntries(new FormData($("export")));
  options.simplify = Number(options.simplify);
  if (shapes) options.shapes = shapes;
  const proposals = kept.masks().map(({ score, segmentation }) => ({ score, segmentation }));
  $("export-button").disabled = true;
  try {
    const { name, blob } = await exportMasks({ format, images: [{ ...image, proposals }], options });
    save(name, blob);
    say(`${name} written: ${proposals.length === 1 ? "1 mask" : `${proposals.length} masks`}.`);
  } catch (error) {
    say(error.message, "bad");
  } finally {
    $("export-button").disabled = kept.ids.size === 0;
  }
});

function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

let fading = 0;

/** A short message at the lower edge, also read aloud. how: "bad" stays until the next one, "spoken" is not seen. */
function say(text, how = "") {
  clearTimeout(fading);
  $("status").textContent = text;
  $("status").className = how === "spoken" ? "unseen" : how;
  if (text && how !== "bad") fading = setTimeout(() => say(""), 4000);
}

// ---------------------------------------------------------------- choosing a picture

const chooseFile = () => $("file").click();
$("choose").addEventListener("click", chooseFile);
$("another").addEventListener("click", chooseFile);
$("cancel").addEventListener("click", () => {
  running?.abort();
  say("Cancelled.");
});
$("file").addEventListener("change", () => {
  open($("file").files[0]);
  $("file").value = ""; // so that the same file can be chosen again
});

/** The first file of a drop or a paste. */
function firstFile(transfer) {
  const files = [...(transfer?.files ?? [])];
  if (files.length > 1) say("Several files: the first one is taken.");
  return files[0];
}

let depth = 0; // of elements that a drag is in; each enters and leaves on its own
addEventListener("dragenter", (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  depth++;
  $("dropping").hidden = false;
});
addEventListener("dragleave", () => {
  depth = Math.max(0, depth - 1);
  $("dropping").hidden = depth === 0;
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  $("dropping").hidden = true;
  open(firstFile(event.dataTransfer));
});
addEventListener("paste", (event) => {
  const pasted = firstFile(event.clipboardData);
  if (pasted) open(pasted);
});

// ---------------------------------------------------------------- start

resetSliders();
showValues(null);
keptChanged();
getInfo()
  .then((answer) => {
    info = answer;
    $("model").textContent = answer.model;
    $("promise").textContent = answer.local
      ? "It stays on this computer."
      : `It is sent to ${location.hostname} and not kept there.`;
    $("kinds").textContent = `JPEG, PNG, WebP, TIFF and others, up to ${answer.max_pixels / 1e6} megapixels`;
    const options = answer.formats.map((name) => new Option(FORMAT_TITLES[name] ?? name, name));
    $("format").replaceChildren(...options);
    showExportFields();
  })
  .catch((error) => say(error.message, "bad"));
