// Pixels and answers, in the float32 arithmetic of the agent that runs on other boards.

const ARRAYS = {
  float32: Float32Array, uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array,
  int16: Int16Array,
};
const LIMITS = { uint8: [0, 255], int8: [-128, 127], uint16: [0, 65535], int16: [-32768, 32767] };
const f32 = Math.fround;
// stands for a logit that is not a number or missing: no tolerance admits it
export const BROKEN = 1e30;

/** Round halves to the even neighbour, as numpy.rint does. */
export function rint(x) {
  const low = Math.floor(x), rest = x - low;
  if (rest !== 0.5) return rest < 0.5 ? low : low + 1;
  return low % 2 === 0 ? low : low + 1;
}

/** Return, for each channel, what each of the 256 pixel values becomes at the input. */
export function pixelTables(spec) {
  const [low, high] = spec.value_range;
  const scale = f32((high - low) / 255), shift = f32(low);
  return [0, 1, 2].map(channel => {
    const mean = f32(spec.mean[channel]), std = f32(spec.std[channel]);
    const table = new ARRAYS[spec.dtype](256);
    for (let pixel = 0; pixel < 256; pixel++) {
      const real = f32(f32(f32(f32(pixel * scale) + shift) - mean) / std);
      if (spec.quantized) {
        const [least, most] = LIMITS[spec.dtype];
        const whole = f32(rint(f32(real / f32(spec.quantized.scale))) + spec.quantized.zero_point);
        table[pixel] = Math.min(Math.max(whole, least), most);
      } else {
        // a file of integers without a scale takes the pixels as they are
        table[pixel] = spec.dtype === "float32" ? real : pixel;
      }
    }
    return table;
  });
}

/** Return a function from uint8 pixels (H, W, 3) to the values of the input tensor. */
export function makePreprocess(spec) {
  const [red, green, blue] = pixelTables(spec), Values = ARRAYS[spec.dtype];
  if (spec.layout === "NHWC") {
    return pixels => {
      const x = new Values(pixels.length);
      for (let i = 0; i < pixels.length; i += 3) {
        x[i] = red[pixels[i]];
        x[i + 1] = green[pixels[i + 1]];
        x[i + 2] = blue[pixels[i + 2]];
      }
      return x;
    };
  }
  return pixels => {
    const plane = pixels.length / 3, x = new Values(pixels.length);
    for (let i = 0, j = 0; j < plane; i += 3, j++) {
      x[j] = red[pixels[i]];
      x[plane + j] = green[pixels[i + 1]];
      x[2 * plane + j] = blue[pixels[i + 2]];
    }
    return x;
  };
}

/** Return a function from what a file gives to logits, real numbers. */
export function makeLogits(spec) {
  const integers = spec && spec.quantized;
  if (!integers) return y => y;
  const scale = f32(integers.scale), zero = f32(integers.zero_point);
  return y => Float32Array.from(y, value => f32(f32(value - zero) * scale));
}

/** Return the place of the largest value, the first of equals. */
export function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/** Return the softmax of logits in float32, and the answer. */
export function postprocess(logits) {
  const answer = argmax(logits), largest = logits[answer];
  const shifted = Float32Array.from(logits, value => Math.exp(value - largest));
  let sum = 0;
  for (const value of shifted) sum += value;
  return { probabilities: shifted.map(value => value / sum), answer };
}

/** Return the places of the five largest logits, the first of equals first. */
export function topFive(logits) {
  const order = Array.from(logits.keys());
  return order.sort((a, b) => logits[b] - logits[a] || a - b).slice(0, 5);
}

/**
 * Compare rows of logits: largest error, lowest cosine, share of equal answers. The error is
 * divided by `scale`, by default the largest absolute wanted logit.
 */
export function compare(got, want, scale = 0) {
  const lengths = new Set(got.map(row => row.length));
  if (got.length !== want.length || lengths.size !== 1 || !lengths.has(want[0].length)) {
    return { max_abs: BROKEN, cosine: 0, agreement: 0, shape: [got.length, ...lengths] };
  }
  let error = 0, largest = 0, cosine = Infinity, equal = 0, finite = true;
  got.forEach((row, n) => {
    let dot = 0, mine = 0, theirs = 0;
    for (let i = 0; i < row.length; i++) {
      const a = row[i], b = want[n][i];
      finite &&= Number.isFinite(a) && Number.isFinite(b);
      error = Math.max(error, Math.abs(a - b));
      largest = Math.max(largest, Math.abs(b));
      dot += a * b;
      mine += a * a;
      theirs += b * b;
    }
    cosine = Math.min(cosine, dot / Math.max(Math.sqrt(mine) * Math.sqrt(theirs), 1e-30));
    equal += argmax(row) === argmax(want[n]);
  });
  const agreement = equal / got.length;
  if (!finite) return { max_abs: BROKEN, cosine: 0, agreement };
  return { max_abs: error / (scale || largest || 1), cosine, agreement };
}
