// From a file to the pixels that the encoder reads: the whole picture, squeezed to a square of S x S.
// It is the bilinear filter of Pillow, rounding included: captioner squeezes pictures by it in Python, and other pixels
// would give other words.

const STRIP = 1 << 20; // pixels that are read at a time
const LARGE = 25e6; // pixels; the browser makes larger pictures smaller before this program sees them
const MOST = 200e6; // pixels; more than any camera makes, and more than a browser can hold
const BITS = 22; // of a weight, behind the point; with the 8 bits of a pixel they fit into a whole number of 32 bits

/** For each place of a row of `to` pixels: where its part of the `from` pixels begins, and the weights of that part. */
export function filter(from, to) {
  const scale = from / to, support = Math.max(scale, 1), share = 1 / support, places = [];
  for (let place = 0; place < to; place++) {
    const centre = (place + 0.5) * scale;
    const start = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), from);
    const weights = [];
    for (let i = start; i < end; i++) weights.push(Math.max(0, 1 - Math.abs((i - centre + 0.5) * share)));
    const sum = weights.reduce((a, b) => a + b, 0);
    places.push({ start, weights: Int32Array.from(weights, (weight) => 0.5 + (weight / sum) * 2 ** BITS) });
  }
  return places;
}

/** Squeeze rows of W pixels, with 4 channels or 3, to rows of RGB, into `target` from the row `first` on. */
export function squeezeRows(source, channels, width, count, horizontal, target, first) {
  const half = 1 << (BITS - 1);
  let to = first * horizontal.length * 3;
  for (let y = 0; y < count; y++) {
    for (const { start, weights } of horizontal) {
      let red = half, green = half, blue = half;
      for (let i = 0, from = channels * (y * width + start); i < weights.length; i++, from += channels) {
        red += weights[i] * source[from];
        green += weights[i] * source[from + 1];
        blue += weights[i] * source[from + 2];
      }
      target[to++] = red >> BITS; // an array of clamped bytes
      target[to++] = green >> BITS;
      target[to++] = blue >> BITS;
    }
  }
}

/** Squeeze columns of RGB pixels (H, W) to (S, W). */
export function squeezeColumns(source, width, vertical) {
  const half = 1 << (BITS - 1), line = 3 * width;
  const target = new Uint8ClampedArray(vertical.length * line);
  vertical.forEach(({ start, weights }, y) => {
    for (let x = 0; x < line; x++) {
      let sum = half;
      for (let i = 0, from = start * line + x; i < weights.length; i++, from += line) sum += weights[i] * source[from];
      target[y * line + x] = sum >> BITS;
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
  const { width, height } = bitmap;
  // What becomes wider and lower becomes lower first, which is less work, and rounds in another way.
  const later = width < size && height > size, between = later ? width : size, horizontal = filter(width, between);
  const rows = Math.min(height, Math.max(1, Math.floor(STRIP / width)));
  const context = new OffscreenCanvas(width, rows).getContext("2d", { willReadFrequently: true });
  const squeezed = new Uint8ClampedArray(height * between * 3);
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.fillStyle = "white"; // under transparent pictures, as in Python
    context.fillRect(0, 0, width, count);
    context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
    squeezeRows(context.getImageData(0, 0, width, count).data, 4, width, count, horizontal, squeezed, top);
  }
  bitmap.close();
  const lower = squeezeColumns(squeezed, between, filter(height, size));
  if (!later) return lower;
  const wider = new Uint8ClampedArray(size * size * 3);
  squeezeRows(lower, 3, width, size, filter(width, size), wider, 0);
  return wider;
}
