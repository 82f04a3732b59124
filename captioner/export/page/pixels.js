// From a file to the pixels that the encoder reads: the whole picture, squeezed to a square of S x S.
// It is the filter of captioner in Python (torch's antialiased bilinear one on bytes), rounding included: the model
// learned from such pictures, and other pixels would give other words.

const STRIP = 1 << 20; // pixels that are read at a time
const LARGE = 25e6; // pixels; the browser makes larger pictures smaller before this program sees them
const MOST = 200e6; // pixels; more than any camera makes, and more than a browser can hold

/** For each place of a row of `to` pixels: where its part of the `from` pixels begins, and the weights of that part. */
export function filter(from, to) {
  const scale = from / to, support = Math.max(scale, 1), rows = [];
  let most = 0;
  for (let place = 0; place < to; place++) {
    const centre = scale * (place + 0.5);
    const start = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), from);
    const shares = [];
    for (let i = start; i < end; i++) shares.push(Math.max(0, 1 - Math.abs((i - centre + 0.5) / support)));
    const sum = shares.reduce((a, b) => a + b, 0);
    rows.push({ start, shares: shares.map((share) => share / sum) });
    most = Math.max(most, ...rows[place].shares);
  }
  // Whole numbers of 16 bits, with as many of these bits behind the point as the largest weight leaves.
  let bits = 0;
  while (bits < 22 && Math.trunc(0.5 + most * 2 ** (bits + 1)) < 1 << 15) bits++;
  const whole = (share) => Math.trunc(0.5 + share * 2 ** bits);
  return { bits, rows: rows.map(({ start, shares }) => ({ start, weights: Int32Array.from(shares, whole) })) };
}

/** Squeeze rows of RGBA pixels (W) to rows of RGB (S), into `target` from the row `first` on. */
export function squeezeRows(source, width, count, horizontal, target, first) {
  const { bits, rows } = horizontal, half = 1 << (bits - 1);
  let to = first * rows.length * 3;
  for (let y = 0; y < count; y++) {
    for (const { start, weights } of rows) {
      let red = half, green = half, blue = half;
      for (let i = 0, from = 4 * (y * width + start); i < weights.length; i++, from += 4) {
        red += weights[i] * source[from];
        green += weights[i] * source[from + 1];
        blue += weights[i] * source[from + 2];
      }
      target[to++] = red >> bits; // an array of clamped bytes
      target[to++] = green >> bits;
      target[to++] = blue >> bits;
    }
  }
}

/** Squeeze columns: RGB (H, S) to (S, S). */
export function squeezeColumns(source, size, vertical) {
  const { bits, rows } = vertical, half = 1 << (bits - 1), line = 3 * size;
  const target = new Uint8ClampedArray(rows.length * line);
  rows.forEach(({ start, weights }, y) => {
    for (let x = 0; x < line; x++) {
      let sum = half;
      for (let i = 0, from = start * line + x; i < weights.length; i++, from += line) sum += weights[i] * source[from];
      target[y * line + x] = sum >> bits;
    }
  });
  return target;
}

/**
 * The pixels (S, S, 3) of a picture in a file. `shown` is its size as the page found it, { width, height }.
 * Throws an Error in plain words for a picture that cannot be read.
 */
export async function readPixels(file, size, shown) {
  const pixels = shown.width * shown.height;
  if (pixels > MOST) throw new Error(`it has ${Math.round(pixels / 1e6)} million pixels, and ${MOST / 1e6} are the most`);
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
  if (pixels > LARGE) {
    const share = Math.sqrt(LARGE / pixels);
    options.resizeWidth = Math.max(1, Math.round(shown.width * share));
    options.resizeHeight = Math.max(1, Math.round(shown.height * share));
    options.resizeQuality = "medium";
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, options);
  } catch {
    throw new Error("it is damaged, or no picture that this browser can read");
  }
  const { width, height } = bitmap, horizontal = filter(width, size);
  const rows = Math.min(height, Math.max(1, Math.floor(STRIP / width)));
  const context = new OffscreenCanvas(width, rows).getContext("2d", { willReadFrequently: true });
  const squeezed = new Uint8ClampedArray(height * size * 3);
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.fillStyle = "white"; // under transparent pictures, as in Python
    context.fillRect(0, 0, width, count);
    context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
    squeezeRows(context.getImageData(0, 0, width, count).data, width, count, horizontal, squeezed, top);
  }
  bitmap.close();
  return squeezeColumns(squeezed, size, filter(height, size));
}
