// One image in, logits out, and the milliseconds of each part that a runtime separates.

import { Failed } from "./failed.js";

const now = () => performance.now();

/** Return a function that counts the threads which a runtime has really started. */
export function countThreads() {
  let started = 0;
  const Original = self.Worker;
  self.Worker = class extends Original {
    postMessage(message, ...rest) {
      // how Emscripten tells a waiting worker to run a thread, in its short and its long form
      const words = message && typeof message === "object" ? message : {};
      if ("start_routine" in words || Object.values(words).includes("run")) started += 1;
      return super.postMessage(message, ...rest);
    }
  };
  return () => 1 + started;
}

/** Return whether this browser can share memory between threads. */
export const canThread = () => self.crossOriginIsolated && typeof SharedArrayBuffer === "function";

async function bytesOf(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Failed("MissingRuntime", `${url}: ${answer.status}`);
  return answer.arrayBuffer();
}

class OnnxRuntimeWeb {
  static async prepare(base, threads) {
    const ort = await import(`${base}ort.wasm.min.mjs`);
    ort.env.wasm.numThreads = canThread() ? threads : 1;
    ort.env.wasm.wasmPaths = { mjs: `${base}ort-wasm-simd-threaded.mjs` };
    ort.env.wasm.wasmBinary = await bytesOf(`${base}ort-wasm-simd-threaded.wasm`);
    ort.env.logLevel = "error";
    return ort;
  }

  static async open(ort, files) {
    const [main, ...others] = files;
    const session = await ort.InferenceSession.create(new Uint8Array(main.data), {
      executionProviders: ["wasm"],
      externalData: others.map(({ name, data }) => ({ path: name, data: new Uint8Array(data) })),
    });
    return new OnnxRuntimeWeb(ort, session);
  }

  constructor(ort, session) {
    const [entry] = session.inputMetadata;
    Object.assign(this, { ort, session, name: entry.name, dtype: entry.type });
    this.shape = entry.shape.map(size => (typeof size === "number" ? size : null));
    this.output = session.outputNames[0];
    this.provider = "CPUExecutionProvider";
  }

  // copies are inside `run` of ONNX Runtime and cannot be separated
  async run(x, shape) {
    const begin = now();
    const feeds = { [this.name]: new this.ort.Tensor(this.dtype, x, shape) };
    const y = (await this.session.run(feeds))[this.output].data;
    return { y, parts: { infer: now() - begin } };
  }
}

// by the number that stands for it in litert::ElementType
const TYPES = {
  1: ["float32", Float32Array], 3: ["uint8", Uint8Array], 7: ["int16", Int16Array],
  9: ["int8", Int8Array], 17: ["uint16", Uint16Array],
};

class LiteRtWeb {
  static async prepare(base, threads) {
    const litert = await import(`${base}index.js`);
    const fast = await litert.supportsFeature("relaxedSimd");
    const threaded = threads > 1 && canThread() && fast;
    const stem = `litert_wasm${threaded ? "_threaded" : fast ? "" : "_compat"}_internal`;
    self.Module = {
      wasmBinary: await bytesOf(`${base}${stem}.wasm`),
      locateFile: name => base + name,
      mainScriptUrlOrBlob: `${base}${stem}.js`,
    };
    return { litert, script: `${base}${stem}.js`, threads: threaded ? threads : 1 };
  }

  static async open({ litert, script, threads }, files) {
    const runtime = await litert.loadLiteRt(script);
    const wasm = runtime.liteRtWasm, environment = runtime.getDefaultEnvironment();
    const data = new Uint8Array(files[0].data);
    const place = wasm._malloc(data.length);
    wasm.HEAPU8.set(data, place);
    const model = wasm.loadModel(environment.liteRtEnvironment, place, data.length);
    const options = {
      environment, accelerator: "wasm", cpuOptions: { numThreads: threads }, gpuOptions: {},
      webNNOptions: {},
    };
    const compiled = await wasm.compileModel(environment.liteRtEnvironment, model, options);
    return new LiteRtWeb(wasm, environment.liteRtEnvironment, model, compiled);
  }

  // The package's own Tensor knows neither int8 nor int16, and copies inside its calls: buffers of
  // its WebAssembly module, which it publishes as `liteRtWasm`, know both and show the copies.
  constructor(wasm, environment, model, compiled) {
    Object.assign(this, { wasm, compiled });
    const entry = this.tensor(model.getInputTensorType(0, 0));
    const result = this.tensor(model.getOutputTensorType(0, 0));
    this.name = model.getSignature(0).inputNames().get(0);
    [this.dtype, this.shape, this.Output] = [entry.dtype, entry.shape, result.Values];
    this.provider = "XNNPACK";
    const type = model.getInputTensorType(0, 0), kind = wasm.LiteRtTensorBufferType.HOST_MEMORY;
    this.buffer = wasm.LiteRtTensorBuffer.createManaged(environment, kind, type, type.bytes());
  }

  tensor(type) {
    const [dtype, Values] = TYPES[type.elementType().value] || ["unknown", Uint8Array];
    const sizes = type.layout().dimensions();
    return { dtype, Values, shape: Array.from({ length: sizes.size() }, (_, i) => sizes.get(i)) };
  }

  fill(x) {
    const place = this.buffer.lock(this.wasm.LiteRtTensorBufferLockMode.WRITE);
    this.wasm.HEAPU8.set(new Uint8Array(x.buffer, x.byteOffset, x.byteLength), place);
    this.buffer.unlock();
  }

  take(buffers) {
    const place = buffers[0].lock(this.wasm.LiteRtTensorBufferLockMode.READ);
    const bytes = this.wasm.HEAPU8.slice(place, place + buffers[0].packedSize());
    buffers[0].unlock();
    for (const buffer of buffers) buffer.delete();
    return new this.Output(bytes.buffer);
  }

  async run(x) {
    const begin = now();
    this.fill(x);
    const copied = now();
    const given = await this.compiled.run(0, [this.buffer]);
    const inferred = now();
    const y = this.take(given);
    const end = now();
    return {
      y,
      parts: { copy_in: copied - begin, infer: inferred - copied, copy_out: end - inferred },
    };
  }
}

export const RUNTIMES = { onnxruntime: OnnxRuntimeWeb, litert: LiteRtWeb };
