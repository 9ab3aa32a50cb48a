// The bench: load, prove, warm up, time, answer. It says what the agent of other boards says.

import { Failed, explain } from "./failed.js";
import { Rows } from "./npz.js";
import { compare, makeLogits, makePreprocess, postprocess, topFive } from "./numbers.js";
import { RUNTIMES, countThreads } from "./runtimes.js";

const RESOLVED = 50;  // what is timed must last this many steps of the clock: 2 %
const BLOCK_MS = 60;
const WINDOWS = 6;
const MOST_WINDOWS = 50;
const FALLING = 0.9;  // browsers compile hot code again, and it becomes faster in steps
const FASTER = 8;  // so much faster may it become yet
const BLOCK_INPUTS = 64;
const WHOLE = "e2e_from_uint8";
const ROWS = 1000;  // answers in one event
const now = () => performance.now();

/** Return the smallest step of the clock, milliseconds. */
export function clockStep() {
  let smallest = Infinity, changes = 0, before = now();
  const begin = before;
  while (changes < 50 && before - begin < 2000) {
    const moment = now();
    if (moment > before) {
      smallest = Math.min(smallest, moment - before);
      changes += 1;
    }
    before = moment;
  }
  return Number.isFinite(smallest) ? smallest : 2000;
}

/** Run one plan and send its events; the last is `done` or `error`. */
export async function bench(plan, post) {
  const begun = now();
  const send = (k, fields) => post({ k, t: (now() - begun) / 1000, ...fields });
  try {
    if (typeof WebAssembly === "undefined") throw new Failed("NoWebAssembly", "none here");
    await new Bench(plan, send).walk();
  } catch (error) {
    send("error", explain(error));
  }
}

class Bench {
  constructor(plan, send) {
    Object.assign(this, { plan, send, timing: plan.timing, shape: plan.input.shape });
    this.preprocess = makePreprocess(plan.input);
    this.logits = makeLogits(plan.output);
    this.step = clockStep();
    this.block = 1;
  }

  async walk() {
    this.send("tel", { phase: "before" });
    await this.load();
    if (await this.prove()) {
      const images = await this.inputs();
      await this.warmUp(images);
      await this.time(images);
      if (this.plan.score) await this.score();
    }
    this.send("tel", { phase: "after" });
    this.send("done", {});
  }

  async load() {
    const threads = countThreads(), Runtime = RUNTIMES[this.plan.runtime];
    const files = [];
    for (const file of this.plan.model) {
      const answer = await fetch(file.url);
      if (!answer.ok) throw new Failed("PackInvalid", `${file.name}: ${answer.status}`);
      files.push({ name: file.name, data: await answer.arrayBuffer() });
    }
    const prepared = await Runtime.prepare(this.plan.packages, this.plan.threads);
    const begin = now();
    this.model = await Runtime.open(prepared, files);
    const load_ms = now() - begin;
    const { name, dtype, shape } = this.model, want = this.plan.input;
    const fits = shape.length === want.shape.length
      && shape.every((size, i) => size === null || size === want.shape[i]);
    if (!fits || dtype !== want.dtype) {
      const text = `the file wants ${dtype} [${shape}], its contract says ${want.dtype}`;
      throw new Failed("InputMismatch", `${text} [${want.shape}]`);
    }
    this.loaded = () => ({
      load_ms, providers: [this.model.provider], precision: null, threads: threads(),
      input: { name, shape, dtype }, clock_step_us: this.step * 1000,
    });
  }

  async prove() {
    const [images, expected, reference] = await Promise.all(
      ["images", "expected", "reference"].map(async name =>
        (await Rows.open(this.plan.golden, name)).all()));
    const x = this.preprocess(images[0]), begin = now();
    await this.model.run(x, this.shape);
    const ms = now() - begin, got = [];
    this.send("loaded", this.loaded());  // only now have all threads been started
    for (const image of images) got.push(await this.answer(image));
    const tolerance = this.plan.tolerance;
    const checks = { expected: compare(got, expected), reference: compare(got, reference) };
    const ok = Object.values(checks).every(check => check.max_abs <= tolerance);
    this.send("golden", { n: images.length, tolerance, ...checks, ok });
    if (ok) this.send("first", { ms, model_mb: null });
    return ok;
  }

  /** Return the images that are rotated. */
  async inputs() {
    const wanted = new Set(this.plan.rotation), last = Math.max(...wanted), images = [];
    let index = 0;
    for await (const image of await Rows.open(this.plan.pack, "images")) {
      if (wanted.has(index)) images.push(image.slice());
      if (index++ === last) break;
    }
    return images;
  }

  async answer(image) {
    return this.logits((await this.model.run(this.preprocess(image), this.shape)).y);
  }

  /** Take one sample: milliseconds of each part, of one image or the mean of a block of them. */
  async sample(images, count) {
    const { block } = this, offset = count * block;
    if (block === 1) return this.one(images[count % images.length]);
    const held = Math.min(block, BLOCK_INPUTS), inputs = new Array(held), outputs = [];
    const begin = now();
    for (let i = 0; i < block; i++) {
      inputs[i % held] = this.preprocess(images[(offset + i) % images.length]);
    }
    const ready = now();
    for (let i = 0; i < block; i++) {
      outputs[i % held] = (await this.model.run(inputs[i % held], this.shape)).y;
    }
    const answered = now();
    for (let i = 0; i < block; i++) postprocess(this.logits(outputs[i % held]));
    const end = now();
    const parts = {
      preprocess: ready - begin, infer: answered - ready, postprocess: end - answered,
      e2e_from_uint8: end - begin,
    };
    for (const name of Object.keys(parts)) parts[name] /= block;
    return parts;
  }

  async one(image) {
    const begin = now();
    const x = this.preprocess(image);
    const ready = now();
    const { y, parts } = await this.model.run(x, this.shape);
    const answered = now();
    postprocess(this.logits(y));
    const end = now();
    return {
      preprocess: ready - begin, ...parts, postprocess: end - answered,
      e2e_from_uint8: end - begin,
    };
  }

  async warmUp(images) {
    const t = this.timing, begin = now(), seconds = () => (now() - begin) / 1000;
    let runs = 0, told = 0, settled = null;
    const capped = () => seconds() >= t.warmup_cap_s;
    const tell = () => {
      if (seconds() < told + 1) return;
      told = seconds();
      this.send("warmup", { runs, s: told, done: false });
    };
    while ((runs < t.warmup_runs || seconds() < t.warmup_s) && !capped()) {
      await this.one(images[runs++ % images.length]);
      tell();
    }
    runs += await this.chooseBlock(images);
    for (let before = null; t.settle_window_s && settled === null;) {
      const window = [], until = seconds() + t.settle_window_s;
      while (seconds() < until && !capped()) {
        window.push((await this.sample(images, window.length)).infer);
        runs += this.block;
        tell();
      }
      if (capped()) {
        settled = false;
      } else {
        const median = window.sort((a, b) => a - b)[window.length >> 1];
        if (before !== null && Math.abs(median / before - 1) < t.settle_within) settled = true;
        before = median;
      }
    }
    if (!t.settle_window_s && capped()) settled = false;
    this.send("warmup", { runs, s: seconds(), done: true, settled });
  }

  /** Time images in blocks where the clock cannot resolve one; return how many were run. */
  async chooseBlock(images) {
    let runs = 0, mean = Infinity;  // of the fastest window: others may have been disturbed
    for (let window = 0, falling = true; window < WINDOWS || falling; window++) {
      const begin = now(), before = runs;
      let infer = 0;
      do infer += (await this.one(images[runs++ % images.length])).infer;
      while (now() - begin < BLOCK_MS);
      const latest = Math.max(infer / (runs - before), 0.001);
      falling = latest < FALLING * mean && window < MOST_WINDOWS;
      mean = Math.min(mean, latest);
    }
    const least = RESOLVED * this.step;
    if (mean < FASTER * least) this.block = Math.ceil(Math.max(BLOCK_MS, FASTER * least) / mean);
    return runs;
  }

  async time(images) {
    const t = this.timing;
    let count = 0, sent = 0, at_us = [], ns = {}, told = now();
    const tell = () => {
      if (at_us.length) this.send("lat", { first: sent, at_us, ns });
      [sent, at_us, ns, told] = [count, [], {}, now()];
    };
    this.send("tel", { phase: "start" });
    const begin = now(), seconds = () => (now() - begin) / 1000;
    while ((count < t.timed_runs || seconds() < t.timed_s) && seconds() < t.timed_cap_s) {
      at_us.push(Math.round((now() - begin) * 1000));
      for (const [name, ms] of Object.entries(await this.sample(images, count))) {
        // cut, not rounded: parts must not add up to more than the whole
        (ns[name] ||= []).push(name === WHOLE ? Math.ceil(ms * 1e6) : Math.floor(ms * 1e6));
      }
      count += 1;
      if (now() - told >= 1000) {
        tell();
        this.send("tel", { phase: "during" });
      }
    }
    const end = now();
    tell();
    this.send("tel", { phase: "end" });
    const inputs = this.block === 1 ? images.length : Math.min(images.length, BLOCK_INPUTS);
    this.send("timed", {
      n: count, s: (end - begin) / 1000, inputs, block: this.block,
      begin_ns: Math.round(begin * 1e6), end_ns: Math.round(end * 1e6), late: 0,
    });
  }

  async score() {
    const reference = this.plan.has_reference
      ? (await Rows.open(this.plan.pack, "reference"))[Symbol.asyncIterator]() : null;
    let first = 0, index = 0, told = now(), rows = {};
    const tell = () => {
      if (index > first) this.send("acc", { first, rows });
      [first, told, rows] = [index, now(), {}];
    };
    for await (const image of await Rows.open(this.plan.pack, "images")) {
      const y = await this.answer(image), { probabilities, answer } = postprocess(y);
      const top5 = topFive(y), score = probabilities[answer];
      const second = top5.length > 1 ? probabilities[top5[1]] : 0;
      const line = { predicted: answer, top5, score, margin: score - second };
      if (reference) {
        const own = compare([y], [(await reference.next()).value], 1);
        Object.assign(line, { agrees: own.agreement === 1, gap: own.max_abs, cosine: own.cosine });
      }
      for (const [name, value] of Object.entries(line)) (rows[name] ||= []).push(value);
      index += 1;
      if (now() - told >= 1000 || index - first >= ROWS) tell();
    }
    tell();
  }
}
