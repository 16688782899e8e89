// ONNX Runtime in this worker: WASM first; the GPU once it has proved that it computes the same.

import { difference } from "./pixels.js";

const VENDOR = new URL("vendor/", import.meta.url).href;
// The picture on which a GPU is compared with WASM, and how far it may be off.
const PROOF_EDGE = 64;
const MOST_APART = 1;
const MOST_OTHERS = 0.01;

/** The graphs of one style, loaded when they are first run. */
export class Style {
  #sessions = new Map();

  constructor(name, runtime) {
    this.name = name;
    this.runtime = runtime;
  }

  /** Run a graph: "whole", or a stage of the chain. */
  async run(graph, feeds) {
    if (!this.#sessions.has(graph)) {
      this.#sessions.set(graph, await this.runtime.load(this.name, graph));
    }
    return this.#sessions.get(graph).run(feeds);
  }

  async release() {
    for (const session of this.#sessions.values()) await session.release();
    this.#sessions.clear();
  }
}

/** One build of ONNX Runtime, with the provider that it computes with. */
export class Runtime {
  constructor(ort, provider) {
    this.ort = ort;
    this.provider = provider;
    this.tensor = (type, data, shape) => new ort.Tensor(type, data, shape);
  }

  static async wasm(threads) {
    const ort = await import(`${VENDOR}ort.wasm.min.mjs`);
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = VENDOR;
    ort.env.logLevel = "error";
    return new Runtime(ort, "wasm");
  }

  /** Return a runtime on the GPU, or null where there is none; `any` takes one in software too. */
  static async gpu({ any }) {
    const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
    if (!adapter || (adapter.info?.isFallbackAdapter && !any)) return null;
    const ort = await import(`${VENDOR}ort.webgpu.min.mjs`);
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = VENDOR;
    ort.env.logLevel = "error";
    return new Runtime(ort, "webgpu");
  }

  async load(style, graph) {
    const file = graph === "whole" ? `${style}.onnx` : `${style}/${graph}.onnx`;
    const response = await fetch(new URL(`models/${file}`, import.meta.url));
    if (!response.ok) throw new Error(`the model ${file} is not there (${response.status})`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    return this.ort.InferenceSession.create(bytes, { executionProviders: [this.provider] });
  }
}

/** Return whether a style's picture from the GPU is that from WASM, in every graph's arithmetic. */
export async function proves(gpu, wasm) {
  const rgb = new Uint8Array(PROOF_EDGE * PROOF_EDGE * 3);
  for (let i = 0; i < rgb.length; i++) {
    const [x, y] = [Math.floor(i / 3) % PROOF_EDGE, Math.floor(i / 3 / PROOF_EDGE)];
    rgb[i] = 127 + 90 * Math.sin(x / 5 + i % 3) * Math.cos(y / 7) + ((i * 7919) % 37);
  }
  const shape = [1, PROOF_EDGE, PROOF_EDGE, 3];
  const pictures = [];
  for (const style of [gpu, wasm]) {
    const feeds = { image: style.runtime.tensor("uint8", rgb.slice(), shape) };
    pictures.push((await style.run("whole", feeds)).stylized.data);
  }
  const { most, share } = difference(...pictures);
  return { holds: most <= MOST_APART && share <= MOST_OTHERS, most, share };
}
