// Arrays of a stored .npz, read by ranges: a phone's memory is small, a pack may not be.

import { Failed } from "./failed.js";

const ARRAYS = {
  u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array,
  i4: Int32Array, i8: BigInt64Array, f4: Float32Array, f8: Float64Array,
};
const TAIL = 66000, HEAD = 8192, CHUNK = 4 << 20;

async function range(file, begin, end) {
  const answer = await fetch(file.url, { headers: { Range: `bytes=${begin}-${end - 1}` } });
  if (answer.status !== 206) throw new Failed("PackInvalid", `${file.url}: ${answer.status}`);
  const bytes = await answer.arrayBuffer();
  if (bytes.byteLength !== end - begin) throw new Failed("PackInvalid", `${file.url} was cut`);
  return bytes;
}

/** Return by name where each entry of the archive begins. */
async function directory(file) {
  const begin = Math.max(0, file.bytes - TAIL);
  const view = new DataView(await range(file, begin, file.bytes));
  let end = view.byteLength - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new Failed("PackInvalid", "not a zip file");
  const entries = {}, count = view.getUint16(end + 10, true);
  let at = view.getUint32(end + 16, true) - begin;
  for (let i = 0; i < count; i++) {
    if (at < 0 || view.getUint32(at, true) !== 0x02014b50) {
      throw new Failed("PackInvalid", "the archive is too large for a browser, or torn");
    }
    const [name, extra, comment] = [28, 30, 32].map(place => view.getUint16(at + place, true));
    const text = new TextDecoder().decode(new Uint8Array(view.buffer, at + 46, name));
    const method = view.getUint16(at + 10, true);
    entries[text] = { method, begin: view.getUint32(at + 42, true) };
    at += 46 + name + extra + comment;
  }
  return entries;
}

/** One array of an archive: its shape, and its rows one after the other. */
export class Rows {
  static async open(file, name) {
    const entry = (await directory(file))[`${name}.npy`];
    if (!entry) throw new Failed("PackInvalid", `no array '${name}'`);
    if (entry.method !== 0) throw new Failed("PackInvalid", `'${name}' is compressed`);
    const bytes = await range(file, entry.begin, Math.min(entry.begin + HEAD, file.bytes));
    const view = new DataView(bytes);
    const npy = 30 + view.getUint16(26, true) + view.getUint16(28, true);
    const text = new TextDecoder("latin1").decode(new Uint8Array(bytes, npy));
    if (!text.startsWith("\u201cNUMPY\x01")) {  // 0x93 in the Windows table that browsers use
      throw new Failed("PackInvalid", `'${name}' is not an array of npy version 1`);
    }
    const length = view.getUint16(npy + 8, true), header = text.slice(10, 10 + length);
    const type = /'descr': '[<|]([uif][1248])'/.exec(header);
    const shape = /'shape': \(([\d, ]*)\)/.exec(header);
    if (!type || !ARRAYS[type[1]] || !shape || !/'fortran_order': False/.test(header)) {
      throw new Failed("PackInvalid", `'${name}' is not a plain array: ${header.trim()}`);
    }
    const sizes = shape[1].split(",").map(part => part.trim()).filter(Boolean).map(Number);
    return new Rows(file, entry.begin + npy + 10 + length, ARRAYS[type[1]], sizes);
  }

  constructor(file, begin, Values, shape) {
    Object.assign(this, { file, begin, Values, shape, count: shape[0] });
    this.width = shape.slice(1).reduce((a, b) => a * b, 1);
  }

  /** Yield typed arrays, one for each row. */
  async *[Symbol.asyncIterator]() {
    const bytes = this.width * this.Values.BYTES_PER_ELEMENT;
    const together = Math.max(1, Math.floor(CHUNK / bytes));
    for (let first = 0; first < this.count; first += together) {
      const rows = Math.min(together, this.count - first), begin = this.begin + first * bytes;
      const values = new this.Values(await range(this.file, begin, begin + rows * bytes));
      for (let i = 0; i < rows; i++) {
        const row = values.subarray(i * this.width, (i + 1) * this.width);
        yield this.Values === BigInt64Array ? Array.from(row, Number) : row;
      }
    }
  }

  /** Return all rows. */
  async all() {
    const rows = [];
    for await (const row of this) rows.push(row);
    return rows;
  }
}
