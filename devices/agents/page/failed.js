// A failure with a type that the workstation knows.

export class Failed extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

const MEMORY = /out of memory|could not allocate|allocation fail|bad_alloc|\bOOM\b|cannot enlarge/i;

/** Return type and text of whatever was thrown. */
export function explain(error) {
  const text = String((error && error.message) || error).slice(0, 1000);
  if (error instanceof Failed) return { type: error.kind, msg: text };
  if (MEMORY.test(text)) return { type: "MemoryError", msg: text };
  return { type: (error && error.name) || "Error", msg: text };
}
