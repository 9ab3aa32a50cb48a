// The line to the workstation: events go out in order, each once; its orders come back.

const PATIENCE_MS = 60000;
const POST_BYTES = 512 * 1024;
const sleep = ms => new Promise(wake => setTimeout(wake, ms));

/** The workstation does not want this page any more; the message says why. */
export class Dismissed extends Error {}

const REASONS = {
  404: "This address is not valid any more: the command on the computer has ended.",
  409: "Another browser is already connected. Close that page, or start the command again.",
};

export class Link {
  /** `troubled` is told true when the line is lost, and false when it is back. */
  constructor(troubled) {
    const random = crypto.getRandomValues(new Uint8Array(12));
    this.client = Array.from(random, byte => byte.toString(16).padStart(2, "0")).join("");
    Object.assign(this, { troubled, queue: [], number: 0, job: 0, wake: () => {} });
    addEventListener("pagehide", () => {
      const bye = JSON.stringify({ k: "bye", t: 0, job: this.job });
      this.number += 1;
      navigator.sendBeacon("talk", this.body([bye]));
    });
  }

  /** Queue an event of the order that stands; what ends one is sent at once. */
  send(event) {
    this.queue.push(JSON.stringify({ ...event, job: this.job }));
    if (["facts", "done", "error"].includes(event.k)) this.wake();
  }

  body(events) {
    const head = JSON.stringify({ client: this.client, number: this.number });
    const text = `${head.slice(0, -1)},"events":[${events.join(",")}]}`;
    return new Blob([text], { type: "application/json" });
  }

  /** Send what is queued and return the order that stands, or null. */
  async talk() {
    const events = [];
    for (let bytes = 0; this.queue.length && (!events.length || bytes < POST_BYTES);) {
      bytes += this.queue[0].length;
      events.push(this.queue.shift());
    }
    this.number += 1;
    const answer = await this.post(this.body(events));
    if (!answer.ok) throw new Dismissed(REASONS[answer.status] || await answer.text());
    return (await answer.json()).job;
  }

  async post(body) {
    for (const begin = performance.now(); ;) {
      try {
        const answer = await fetch("talk", { method: "POST", body });
        this.troubled(false);
        return answer;
      } catch (error) {
        if (performance.now() - begin > PATIENCE_MS) {
          throw new Dismissed(`The computer cannot be reached any more (${error.message}).`);
        }
        this.troubled(true);
        await sleep(1000);
      }
    }
  }

  /** Wait some milliseconds, or until something must be sent at once. */
  async pause(ms) {
    if (this.queue.length > 1000) return;
    await Promise.race([sleep(ms), new Promise(wake => { this.wake = wake; })]);
  }
}
