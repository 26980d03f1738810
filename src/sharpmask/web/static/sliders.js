// The sliders: their values, what they mean, and how this reads.

const $ = (id) => document.getElementById(id);
const NAMES = ["count", "score", "nms", "min-area", "max-area"];
const DECADES = 5; // of the area sliders, down from the whole picture

// The ends of the score slider, as logits: scores crowd near 1, where logits spread them out.
let lowest = 0;
let highest = 0;
const logit = (score) => Math.log(score / (1 - score));

/** Let the score slider reach from the worst to the best of these masks. */
export function setScores(masks) {
  const scores = masks.map(({ score }) => Math.min(Math.max(score, 1e-7), 1 - 1e-7));
  lowest = scores.length ? logit(Math.min(...scores)) : 0;
  highest = scores.length ? logit(Math.max(...scores)) : 0;
}

/** The score that a place 0 … 100 of the slider stands for; the worst mask's place lets all pass. */
function scoreAt(place) {
  return place <= 0 ? 0 : 1 / (1 + Math.exp(-(lowest + ((highest - lowest) * place) / 100)));
}

/** A score with enough digits to tell it from 1. */
export function scoreText(score) {
  return score >= 0.99995 ? ">0.9999" : score.toFixed(score > 0.99 ? 4 : 2);
}

/** To the values of the page's source; browsers otherwise remember those of the last visit. */
export function resetSliders() {
  for (const name of NAMES) $(name).value = $(name).defaultValue;
}

/** The share of the picture that a place 0 … 100 of an area slider stands for: equal steps are equal factors. */
const share = (place) => (place <= 0 ? 0 : 10 ** ((DECADES * (place - 100)) / 100));

/** The filters for `choose`; `image` has a width and a height. */
export function readFilters(image) {
  const pixels = image.width * image.height;
  const most = Number($("max-area").value);
  return {
    count: Number($("count").value),
    minScore: scoreAt(Number($("score").value)),
    nms: Number($("nms").value),
    minArea: share(Number($("min-area").value)) * pixels,
    maxArea: most >= 100 ? Infinity : share(most) * pixels,
  };
}

/** Write each slider's value beside it; the areas in pixels where there is a picture. */
export function showValues(image) {
  const area = (value) => {
    const part = share(value);
    if (image && part * image.width * image.height < 10_000) return `${Math.round(part * image.width * image.height)} px`;
    return `${(100 * part).toPrecision(2)} %`;
  };
  const texts = {
    count: (value) => String(value),
    score: (value) => (value > 0 ? scoreText(scoreAt(value)) : "any"),
    nms: (value) => (value < 1 ? value.toFixed(2) : "any"),
    "min-area": (value) => (value > 0 ? area(value) : "any"),
    "max-area": (value) => (value < 100 ? area(value) : "any"),
  };
  for (const name of NAMES) {
    const slider = $(name);
    const text = texts[name](Number(slider.value));
    slider.parentElement.querySelector("output").textContent = text;
    slider.setAttribute("aria-valuetext", text);
    const part = (slider.value - slider.min) / (slider.max - slider.min || 1);
    slider.style.setProperty("--part", `${100 * part}%`);
  }
}
