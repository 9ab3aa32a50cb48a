// The page: it tells what it is, does what the workstation orders, and shows how far it is.

import { Dismissed, Link } from "./link.js";
import { Progress, headline, showFacts, showResult, warn } from "./view.js";

const BUSY_MS = 1000;  // between two posts while a model is timed
const IDLE_MS = 250;
const TEXTS = {
  NoWebAssembly: "This browser has no WebAssembly, or it is switched off: use another browser.",
  MemoryError: "The browser ran out of memory: close other tabs, or use a smaller model.",
};

async function gather() {
  const agent = navigator.userAgentData, wanted = ["model", "platformVersion", "fullVersionList"];
  const more = agent ? await agent.getHighEntropyValues(wanted).catch(() => ({})) : {};
  const battery = navigator.getBattery ? await navigator.getBattery().catch(() => null) : null;
  const brands = (more.fullVersionList || []).map(({ brand, version }) => [brand, version]);
  return {
    user_agent: navigator.userAgent, platform: agent ? agent.platform : "",
    platform_version: more.platformVersion || "", model: more.model || "", brands,
    cores: navigator.hardwareConcurrency || null, memory_gb: navigator.deviceMemory || null,
    screen: [screen.width, screen.height], secure: isSecureContext,
    isolated: Boolean(self.crossOriginIsolated), wasm: typeof WebAssembly !== "undefined",
    battery: battery && { level: battery.level, charging: battery.charging },
  };
}

function tellFacts(facts) {
  const threads = facts.isolated ? "yes" : facts.secure
    ? "no: the page is not isolated from others" : "no: the address is not a secure one";
  showFacts([
    ["WebAssembly", facts.wasm ? "yes" : "no"],
    ["Threads and a fine clock", threads],
    ["Processor cores", facts.cores === null ? "not told" : String(facts.cores)],
    ["Device", [facts.model, facts.platform, facts.platform_version].filter(Boolean).join(" ")
      || "not told"],
    ["Browser", facts.user_agent],
  ]);
}

async function stayAwake() {
  try {
    await navigator.wakeLock.request("screen");
  } catch {
    // not in every browser, and refused when the battery is low: the footer asks for it
  }
}

class Page {
  constructor() {
    this.link = new Link(lost => warn(lost ? "No answer from the computer; trying again." : ""));
    this.worker = null;
    document.addEventListener("visibilitychange", () => this.tellTab());
  }

  tellTab() {
    if (!document.hidden) stayAwake();
    if (this.worker === null) return;
    const t = (performance.now() - this.begun) / 1000;
    this.link.send({ k: "tab", t, hidden: document.hidden });
  }

  async live() {
    const facts = await gather();
    tellFacts(facts);
    this.link.send({ k: "facts", t: 0, ...facts });
    headline("Connected", "Waiting for the computer.");
    for (;;) {
      const order = await this.link.talk();
      if (order && order.id !== this.link.job) {
        this.stop();
        this.link.job = order.id;
        if (order.do === "end") {
          return headline(order.ok ? "Finished" : "Ended with an error", order.text, !order.ok);
        }
        if (order.do === "show") showResult(order);
        if (order.do === "bench") this.bench(order);
        if (order.do === "wait") headline("Waiting for the computer", order.text);
      }
      await this.link.pause(this.worker ? BUSY_MS : IDLE_MS);
    }
  }

  bench({ title, model, plan }) {
    headline(title, model);
    stayAwake();
    const base = new URL(".", location.href).href;
    const absolute = url => base + url;
    const file = ({ url, ...rest }) => ({ ...rest, url: absolute(url) });
    plan = {
      ...plan, golden: file(plan.golden), pack: file(plan.pack), model: plan.model.map(file),
      packages: absolute(plan.packages),
    };
    const progress = new Progress(plan, plan.score);
    this.worker = new Worker("worker.js");
    this.begun = performance.now();
    this.tellTab();
    const see = event => {
      this.link.send(event);
      progress.see(event);
      if (event.k !== "done" && event.k !== "error") return;
      this.stop();
      if (event.k === "error") headline("This did not work", TEXTS[event.type] || event.msg, true);
    };
    this.worker.onmessage = ({ data }) => see(data);
    this.worker.onerror = event => {
      event.preventDefault();
      const msg = event.message || "the worker could not be started";
      const type = /memory/i.test(msg) ? "MemoryError" : "WorkerError";
      see({ k: "error", t: (performance.now() - this.begun) / 1000, type, msg });
    };
    this.worker.postMessage(plan);
  }

  stop() {
    if (this.worker) this.worker.terminate();
    this.worker = null;
  }
}

const page = new Page();
page.live().catch(error => {
  page.stop();
  warn("");
  const text = error instanceof Dismissed ? error.message : `The page failed: ${error.message}`;
  headline("This page has stopped", text, true);
});
