/** Gives one recogniser what a test wrote down, and keeps what it says: Python's `replayed` does the same with its own. */

import { Recogniser } from "./recogniser.js";

/** A model that adds up its inputs with weights, so that every sample of every window counts; absent ones (NaN) count 0. */
class Weighing {
  constructor(metadata) {
    this.metadata = metadata;
  }

  async run(feeds, count) {
    const probabilities = new Float32Array(count * 2);
    for (let row = 0; row < count; row += 1) {
      let sum = 0;
      for (const values of feeds.values()) {
        const length = values.length / count;
        const own = values.subarray(row * length, (row + 1) * length);
        if (own.every(Number.isFinite)) own.forEach((value, i) => (sum += value * Math.sin(i)));
      }
      const share = 1 / (1 + Math.exp(-sum / 10));
      probabilities.set([1 - share, share], row * 2);
    }
    return { probabilities };
  }
}

const plain = (answer) => ({
  start_ns: String(answer.startNs),
  end_ns: String(answer.endNs),
  activity: answer.activity,
  confidence: answer.confidence,
  probabilities: [...answer.probabilities],
  left_out: Object.fromEntries(answer.leftOut),
});

/** Return what each step gave: its answers, or the words of its error. A step without a stream is a reset. */
export async function replay({ metadata, settings, steps }) {
  const recogniser = new Recogniser(new Weighing(metadata), settings);
  const found = steps.map(({ stream, times, is_float: isFloat, samples, unit }) => {
    if (stream === null) return recogniser.reset();
    const rows = samples.map((row) => row.map((value) => value ?? NaN));
    return recogniser.add(stream, isFloat ? times.map((time) => time ?? NaN) : times.map(BigInt), rows, unit ? { unit } : {});
  });
  return Promise.all(found.map(async (answers) => {
    try {
      return ((await answers) ?? []).map(plain);
    } catch (error) {
      return `${error.name}: ${error.message}`;
    }
  }));
}
