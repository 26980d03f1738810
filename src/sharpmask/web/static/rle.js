// Masks as runs of pixels.
//
// The server sends COCO's compressed run-length code. It walks the picture column by column and lists the lengths of the
// runs of zeros and ones in turn; each length, from the fourth on as the difference to the one two before, is written in
// digits of five bits, the lowest first. Here a mask is the list of its runs of ones: begin, end, begin, end, …
// (end exclusive), each a pixel number x * height + y.

/** The runs of ones of a compressed code, as Int32Array. */
export function decode(counts) {
  const lengths = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0;
    let unit = 1; // powers and not shifts: seven digits are more than 32 bits
    let code;
    do {
      code = counts.charCodeAt(at++) - 48;
      value += (code & 31) * unit;
      unit *= 32;
    } while (code & 32);
    if (code & 16) value -= unit;
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(value);
  }
  const runs = new Int32Array(lengths.length & ~1);
  let place = 0;
  let used = 0;
  for (let i = 0; i < lengths.length; i++) {
    if (i % 2 && lengths[i] > 0) {
      runs[used++] = place;
      runs[used++] = place + lengths[i];
    }
    place += lengths[i];
  }
  return runs.subarray(0, used);
}

/** Whether a pixel number lies in one of the runs. */
export function contains(runs, place) {
  let low = 0;
  let high = runs.length / 2; // the first run that begins after the place
  while (low < high) {
    const middle = (low + high) >> 1;
    if (runs[2 * middle] <= place) low = middle + 1;
    else high = middle;
  }
  return low > 0 && place < runs[2 * low - 1];
}

/** How many pixels two masks have in common. */
export function overlap(a, b) {
  let common = 0;
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const begin = a[i] > b[j] ? a[i] : b[j];
    const endA = a[i + 1];
    const endB = b[j + 1];
    const end = endA < endB ? endA : endB;
    if (end > begin) common += end - begin;
    if (endA < endB) i += 2;
    else j += 2;
  }
  return common;
}

/**
 * A pixel inside the mask, [x, y]: the middle of the run in which this part of the mask's pixels is reached, counted from
 * the left.
 */
export function innerPixel(runs, area, height, part = 0.5) {
  let left = area * part;
  let i = 0;
  while (i < runs.length - 2 && left > runs[i + 1] - runs[i]) {
    left -= runs[i + 1] - runs[i];
    i += 2;
  }
  // A run may go on in the next column; its part in the first one is enough.
  const x = Math.floor(runs[i] / height);
  const end = Math.min(runs[i + 1], (x + 1) * height);
  return [x, Math.floor((runs[i] + end - 1) / 2) - x * height];
}
