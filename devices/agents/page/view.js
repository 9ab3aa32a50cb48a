// What a person sees: the step that runs, how far it is, and what came out.

const $ = id => document.getElementById(id);
const STEPS = {
  load: "Load the model", prove: "Check answers", warm: "Warm up", time: "Measure",
  answer: "Answer all images",
};
const LONG = 48;
const seconds = s => `${s < 10 ? s.toFixed(1) : s.toFixed(0)} s`;

function list(element, texts) {
  element.replaceChildren(...texts.map(text => Object.assign(document.createElement("li"), {
    textContent: text,
  })));
}

function pairs(element, rows) {
  const cell = (tag, textContent, className) =>
    Object.assign(document.createElement(tag), { textContent, className });
  element.replaceChildren(...rows.flatMap(([name, value]) => {
    const width = value.length > LONG ? "long" : "";
    return [cell("dt", name, width), cell("dd", value, width)];
  }));
}

/** Say in one line, and one more, what goes on. */
export function headline(text, detail = "", failed = false) {
  $("headline").textContent = text;
  $("headline").classList.toggle("failed", failed);
  $("detail").textContent = detail;
  if (failed) $("bar").hidden = true;
}

export function warn(text) {
  $("warning").textContent = text;
  $("warning").hidden = !text;
}

export const showFacts = rows => pairs($("facts"), rows);

/** Show the verdict and the figures that the workstation made of the samples. */
export function showResult({ verdicts, reasons, figures, conditions }) {
  $("result").hidden = false;
  $("verdict").textContent = verdicts.join(", ");
  $("verdict").className = verdicts[0] === "VALID" ? "verdict valid" : "verdict";
  list($("reasons"), reasons);
  pairs($("figures"), figures);
  list($("conditions"), conditions);
  $("state").hidden = !conditions.length;
}

/** The steps of one run. */
export class Progress {
  constructor(plan, score) {
    this.plan = plan;
    const names = Object.keys(STEPS).filter(name => name !== "answer" || score);
    this.rows = Object.fromEntries(names.map(name => {
      const row = document.createElement("li"), note = document.createElement("span");
      note.className = "note";
      row.append(STEPS[name], note);
      return [name, { row, note }];
    }));
    $("steps").replaceChildren(...Object.values(this.rows).map(({ row }) => row));
    $("steps").hidden = $("bar").hidden = false;
    $("result").hidden = true;
    this.enter("load");
  }

  enter(name) {
    if (this.current === name || !this.rows[name]) return;
    if (this.current) this.rows[this.current].row.className = "done";
    this.current = name;
    this.rows[name].row.className = "running";
    $("bar").removeAttribute("value");
  }

  note(name, text, share) {
    this.enter(name);
    this.rows[name].note.textContent = text;
    if (share !== undefined) $("bar").value = Math.min(share, 1);
  }

  /** Follow an event. */
  see(event) {
    const t = this.plan.timing;
    if (event.k === "loaded") {
      this.note("load", `${Math.round(event.load_ms)} ms`);
      this.enter("prove");
    } else if (event.k === "golden") {
      this.note("prove", event.ok ? `${event.n} of ${event.n} equal` : "wrong answers");
      if (!event.ok) return this.fail();
      this.enter("warm");
    } else if (event.k === "warmup") {
      this.note("warm", `${event.runs} runs, ${seconds(event.s)}`, event.s / t.warmup_s);
      if (event.done) this.enter("time");
    } else if (event.k === "lat") {
      this.samples = event.first + event.at_us.length;
      const s = event.at_us.at(-1) / 1e6;
      this.note("time", `${this.samples} samples, ${seconds(s)}`,
        Math.min(this.samples / t.timed_runs, s / t.timed_s));
    } else if (event.k === "timed") {
      const text = event.block > 1 ? `${event.n} blocks of ${event.block}` : `${event.n} samples`;
      this.note("time", `${text}, ${seconds(event.s)}`);
      this.enter("answer");
    } else if (event.k === "acc") {
      const done = event.first + event.rows.predicted.length;
      this.note("answer", `${done} of ${this.plan.images}`, done / this.plan.images);
    } else if (event.k === "done") {
      this.end();
    } else if (event.k === "error") {
      this.fail();
    }
    return undefined;
  }

  end() {
    const row = this.rows[this.current].row;
    if (row.className === "running") row.className = "done";
    $("bar").hidden = true;
  }

  fail() {
    this.rows[this.current].row.className = "failed";
    $("bar").hidden = true;
  }
}
