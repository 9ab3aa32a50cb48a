// A worker of the classic kind: LiteRT.js loads its WebAssembly with importScripts, which module
// workers lack. Each run has a worker of its own, as a run on a board has a process of its own.
"use strict";

self.onmessage = async ({ data }) => {
  try {
    const { bench } = await import("./bench.js");
    await bench(data, event => self.postMessage(event));
  } catch (error) {  // the browser is too old for these modules, or they did not arrive
    self.postMessage({ k: "error", t: 0, type: "WorkerError", msg: String(error) });
  }
};
