// What takes time: decoding, the network, blending, encoding. The page only shows and asks.
//
// A message is {id, does, ...}; the answer is {id, ...} or {id, error}. Cancelling is ending the
// worker: a graph that runs cannot be stopped.

import { blend, fillTransparent, scaledSize } from "./pixels.js";
import { Runtime, Style, proves } from "./runtime.js";
import { stylizeInStages } from "./stages.js";

// Up to so many pixels the network runs at once, which takes some 300 bytes a pixel and two thirds
// of the time; above, in stages.
const WHOLE_PIXELS = 1 << 20;
const STRIP_PIXELS = 1 << 18;
// What the page shows; the download has all pixels.
const SHOWN_EDGE = 2048;

const state = { photo: null, stylized: null, shown: null, wasm: null, gpu: null, style: null };

const deeds = {
  /** Load WASM: {threads} -> {}. */
  async begin({ threads }) {
    state.wasm = await Runtime.wasm(threads);
    return {};
  },

  /** Decode a photo: {file, longEdge, most} -> its own size, the size taken, and what to show. */
  async open({ file, longEdge, most }) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    } catch {
      throw new Error("not a photo");
    }
    const own = [bitmap.width, bitmap.height];
    const [width, height] = scaledSize(...own, longEdge);
    if (width * height > most) {
      bitmap.close();
      return { own, tooLarge: true };
    }
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (!context) throw new RangeError("out of memory");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    const data = context.getImageData(0, 0, width, height).data;
    fillTransparent(data);
    state.photo = { data, width, height };
    state.stylized = state.shown = null;
    const before = await shownBitmap(data);
    return { own, size: [width, height], before };
  },

  /** Apply a style to the photo; `whole` and `pixels` (a strip's) are there to try things out. */
  async stylize({ id, style, channels, pixels = STRIP_PIXELS, whole = WHOLE_PIXELS }) {
    const { width, height } = state.photo;
    const staged = width * height > whole;
    const begun = performance.now();
    const [graphs, provider] = await graphsOf(style);
    let output;
    try {
      output = await apply(graphs, id, { staged, channels, pixels });
    } catch (error) {
      if (provider !== "webgpu") throw error;
      // A GPU that failed is not asked again.
      await forgetGpu();
      const [onWasm] = await graphsOf(style);
      output = await apply(onWasm, id, { staged, channels, pixels });
    }
    state.stylized = output;
    state.shown = null;
    const seconds = (performance.now() - begun) / 1000;
    return { seconds, staged, provider: state.style.runtime.provider };
  },

  /** Return the picture to show: {strength} -> {after}. */
  async show({ strength }) {
    state.shown ??= {
      photo: await shownPixels(state.photo.data),
      stylized: await shownPixels(state.stylized),
    };
    const { photo, stylized } = state.shown;
    const image = new ImageData(blend(photo.data, stylized.data, strength), photo.width);
    return { after: await createImageBitmap(image) };
  },

  /** Encode the picture at its full size: {strength, type} -> {blob}. */
  async encode({ strength, type }) {
    const { data, width, height } = state.photo;
    const canvas = new OffscreenCanvas(width, height);
    const pixels = blend(data, state.stylized, strength);
    canvas.getContext("2d").putImageData(new ImageData(pixels, width), 0, 0);
    return { blob: await canvas.convertToBlob({ type, quality: 0.95 }) };
  },

  /** Look for a GPU, and let it prove itself on a style: {style} -> {gpu, why}. */
  async prove({ style, any }) {
    const runtime = await Runtime.gpu({ any });
    if (!runtime) return { gpu: false, why: "no adapter" };
    try {
      const found = await proves(new Style(style, runtime), new Style(style, state.wasm));
      if (found.holds) state.gpu = runtime;
      return { gpu: found.holds, why: `${found.most}/255 apart in ${found.share}`, ...found };
    } catch (error) {
      return { gpu: false, why: String(error.message ?? error) };
    }
  },
};

/** Return a style's graphs, and what computes them. */
async function graphsOf(name) {
  const runtime = state.gpu ?? state.wasm;
  if (state.style?.name !== name || state.style.runtime !== runtime) {
    await state.style?.release();
    state.style = new Style(name, runtime);
  }
  return [state.style, runtime.provider];
}

async function forgetGpu() {
  state.gpu = null;
  await state.style?.release().catch(() => {});
  state.style = null;
}

async function apply(style, id, { staged, channels, pixels }) {
  const { data, width, height } = state.photo;
  const output = data.slice();
  const progress = (share) => postMessage({ id, progress: share });
  const tensor = style.runtime.tensor;
  if (staged) {
    const run = (stage, feeds) => style.run(stage, feeds);
    await stylizeInStages(state.photo, output, { run, tensor, channels, pixels, progress });
    return output;
  }
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; i < data.length; i += 4) {
    for (let k = 0; k < 3; k++) rgb[j++] = data[i + k];
  }
  const feeds = { image: tensor("uint8", rgb, [1, height, width, 3]) };
  const stylized = (await style.run("whole", feeds)).stylized.data;
  for (let i = 0, j = 0; i < output.length; i += 4) {
    for (let k = 0; k < 3; k++) output[i + k] = stylized[j++];
  }
  return output;
}

async function shownPixels(data) {
  const { width, height } = state.photo;
  const [w, h] = scaledSize(width, height, SHOWN_EDGE);
  const image = new ImageData(data, width);
  if (w === width) return image;
  const bitmap = await createImageBitmap(image, {
    resizeWidth: w,
    resizeHeight: h,
    resizeQuality: "high",
  });
  const context = new OffscreenCanvas(w, h).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, w, h);
}

async function shownBitmap(data) {
  return createImageBitmap(await shownPixels(data));
}

// One after the other, as they were asked.
let last = Promise.resolve();
self.onmessage = ({ data }) => {
  last = last.then(async () => {
    try {
      const answer = await deeds[data.does](data);
      const moved = [answer.before, answer.after].filter(Boolean);
      postMessage({ id: data.id, ...answer }, moved);
    } catch (error) {
      postMessage({ id: data.id, error: describe(error) });
    }
  });
};

function describe(error) {
  const text = String(error?.message ?? error);
  const memory =
    error instanceof RangeError || /memory|bad_alloc|allocat|Aborted|\bOOM\b/i.test(text);
  return { text, kind: text === "not a photo" ? "photo" : memory ? "memory" : "other" };
}
