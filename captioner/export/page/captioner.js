// The model in this browser: from a picture to its caption.

import * as ort from "./onnxruntime.js";
import { beam } from "./decode.js";
import { readPixels } from "./pixels.js";
import { caption } from "./words.js";

/** A file of this folder. What is packed comes unpacked, whether or not the server unpacks it itself. */
async function load(name) {
  const answer = await fetch(new URL(name, import.meta.url)).catch(() => {
    throw new Error(`the file ${name} cannot be fetched, perhaps because there is no network`);
  });
  if (!answer.ok) throw new Error(`the file ${name} is missing on the server (${answer.status})`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

export class Captioner {
  /** Load the model: some seconds, and about 15 MB on the first visit. */
  static async load() {
    const model = new Captioner(), networks = ["encoder", "start", "step"];
    const [text, wasm, ...files] = await Promise.all(
      ["captioner.json.gz", "onnxruntime.wasm.gz", ...networks.map((name) => `${name}.onnx.gz`)].map(load),
    );
    model.settings = JSON.parse(new TextDecoder().decode(text));
    ort.env.wasm.wasmBinary = wasm.buffer;
    ort.env.wasm.numThreads = 1; // more need headers that plain servers do not send
    for (const [place, name] of networks.entries()) {
      model[name] = await ort.InferenceSession.create(files[place], { executionProviders: ["wasm"] });
    }
    return model;
  }

  /** The caption of the picture in a file: see `caption` in words.js. Throws an Error in plain words. */
  async caption(file, shown) {
    const { header } = this.settings, size = header.preprocess.size;
    const pixels = await readPixels(file, size, shown);
    const input = new ort.Tensor("uint8", new Uint8Array(pixels.buffer), [1, size, size, 3]);
    const { features } = await this.encoder.run({ pixels: input });
    const found = await this.start.run({ features });
    const [evidence, kind] = [found.evidence?.data, found.kind.data];
    const hypotheses = await beam((...next) => this.#step(...next), found, evidence, this.settings);
    return caption(hypotheses, evidence, kind, header);
  }

  /** Read one token for each row; `parents` are the rows of `state`, { h, c }, that they continue. */
  async #step(tokens, state, parents) {
    const inputs = { tokens: new ort.Tensor("int64", BigInt64Array.from(tokens, BigInt), [tokens.length]) };
    for (const name of ["h", "c"]) if (state[name]) inputs[name] = picked(state[name], parents);
    const { logits, h_next: h, c_next: c } = await this.step.run(inputs);
    const length = logits.dims[1];
    const rows = tokens.map((_, row) => logits.data.subarray(row * length, (row + 1) * length));
    return { logits: rows, state: { h, c } };
  }
}

/** Some rows of a tensor (L, R, H). */
function picked({ data, dims: [layers, rows, hidden] }, places) {
  const found = new Float32Array(layers * places.length * hidden);
  for (let layer = 0, to = 0; layer < layers; layer++) {
    for (const place of places) {
      const from = (layer * rows + place) * hidden;
      found.set(data.subarray(from, from + hidden), to);
      to += hidden;
    }
  }
  return new ort.Tensor("float32", found, [layers, places.length, hidden]);
}
