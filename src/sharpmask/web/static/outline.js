// Outlines of masks as canvas paths.
//
// An outline follows the edges between pixels. It is drawn through the middles of these edges, which turns staircases into
// slopes; masks that are exported are not touched by this.

/**
 * The outline of a mask as a Path2D in pixels of the picture.
 * step: look at every so many-th pixel only; more than 1 for large pictures, which are shown smaller anyway.
 */
export function outline(mask, height, step = 1) {
  const bitmap = sample(mask, height, step);
  const path = new Path2D();
  for (const points of trace(bitmap)) {
    points.forEach(([x, y], i) => {
      const at = [(x + bitmap.left) * step, (y + bitmap.top) * step];
      if (i === 0) path.moveTo(...at);
      else path.lineTo(...at);
    });
    path.closePath();
  }
  return path;
}

/** The pixels of the mask's box, with a margin of one zero all round, row by row. */
function sample({ box, runs }, height, step) {
  const [left, top] = [Math.floor(box[0] / step), Math.floor(box[1] / step)];
  const columns = Math.ceil(box[2] / step) - left;
  const rows = Math.ceil(box[3] / step) - top;
  const width = columns + 2;
  const pixels = new Uint8Array(width * (rows + 2));
  for (let i = 0; i < runs.length; i += 2) {
    let begin = runs[i];
    while (begin < runs[i + 1]) {
      const x = Math.floor(begin / height);
      const end = Math.min(runs[i + 1], (x + 1) * height);
      if (x % step === step >> 1) {
        // Samples lie in the middle of each step.
        const first = Math.ceil((begin - x * height - (step >> 1)) / step);
        const last = Math.ceil((end - x * height - (step >> 1)) / step);
        const column = Math.floor(x / step) - left + 1;
        for (let y = first; y < last; y++) pixels[(y - top + 1) * width + column] = 1;
      }
      begin = end;
    }
  }
  return { pixels, width, rows: rows + 2, left: left - 1, top: top - 1 };
}

// Directions: right, down, left, up.
const DX = [1, 0, -1, 0];
const DY = [0, 1, 0, -1];

/** All rings around pixels that are set, each a list of points [x, y]; the mask lies to the right of the way. */
export function trace({ pixels, width, rows }) {
  const rings = [];
  const seen = new Uint8Array(pixels.length); // upper edges that were walked along
  const isSet = (x, y) => pixels[y * width + x] === 1;
  for (let row = 1; row < rows; row++) {
    for (let column = 1; column < width; column++) {
      if (!isSet(column, row) || isSet(column, row - 1) || seen[row * width + column]) continue;
      const points = [];
      let [x, y, direction] = [column, row, 0];
      let turned = true;
      do {
        if (direction === 0) seen[y * width + x] = 1;
        const middle = [x + DX[direction] / 2, y + DY[direction] / 2];
        x += DX[direction];
        y += DY[direction];
        // The two pixels ahead of the corner: set on the left turns left, none set turns right.
        const left = isSet(x + AHEAD_LEFT[direction][0], y + AHEAD_LEFT[direction][1]);
        const right = isSet(x + AHEAD_RIGHT[direction][0], y + AHEAD_RIGHT[direction][1]);
        const next = left ? (direction + 3) % 4 : right ? direction : (direction + 1) % 4;
        if (turned || next !== direction) points.push(middle); // not the middles of a straight line
        turned = next !== direction;
        direction = next;
      } while (x !== column || y !== row || direction !== 0);
      rings.push(points);
    }
  }
  return rings;
}

// From a corner (x, y) the pixels around it are (x - 1 | x, y - 1 | y).
const AHEAD_LEFT = [[0, -1], [0, 0], [-1, 0], [-1, -1]];
const AHEAD_RIGHT = [[0, 0], [-1, 0], [-1, -1], [0, -1]];
