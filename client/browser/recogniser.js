/**
 * Activities from live sensors: samples with their times go in, an answer a window comes out. The same as
 * `clmm_core/recognise/recogniser.py`, window for window and word for word; a test gives both the same streams.
 *
 *     const model = await OnnxModel.load("model.onnx");
 *     const recogniser = new Recogniser(model);
 *     for (const answer of await recogniser.add("accelerometer", timesNs, samples)) show(answer.activity ?? "not sure");
 */

import { DataError, general, ModelFileError } from "./errors.js";
import { ACCELEROMETER, Hanging } from "./hanging.js";
import { InTurn } from "./in_turn.js";
import { batchOf } from "./metadata.js";
import { implausible } from "./plausible.js";
import { NotCoveredError, NS, StreamBuffer, TIME_SLACK_NS } from "./stream_buffer.js";

/** @typedef {import("./metadata.js").ModelMetadata} ModelMetadata */
/** @typedef {import("./metadata.js").ModalityInput} ModalityInput */
/** @typedef {import("./stream_buffer.js").Window} Window */
/** @typedef {{metadata: ModelMetadata, run: (feeds: Map<string, Float32Array>, count: number) => Promise<{probabilities: Float32Array}>}} Model  `OnnxModel`. */
/** @typedef {{startNs: bigint, inputs: Map<string, Window>, leftOut: Map<string, string>, isDoubtful: boolean}} Cut  One window's inputs. */
/** @typedef {{startNs: bigint, own: Float64Array}} Recent  Probabilities `[classes]` of a window. */

/**
 * What the model says of one window.
 *
 * @typedef {object} Answer
 * @property {bigint} startNs  on the clock of the samples
 * @property {bigint} endNs
 * @property {string | null} activity  null is "not sure": below the threshold, nothing measured, or samples in another unit
 * @property {number} confidence  the largest of the probabilities
 * @property {Float64Array} probabilities  `[classes]`, averaged over the windows of the last `smoothS`
 * @property {Map<string, string>} leftOut  by modality that this window lacks: why
 */

const JOIN = "+";
const PATIENCE_NS = NS / 2n;
const MAX_APART_NS = 3600n * NS;
const AT_ONCE = 64;

/** A model and the newest samples of its sensors. */
export class Recogniser {
  #model;
  #lengthNs;
  #hopNs;
  #smoothNs;
  #units;
  #inTurn = new InTurn();
  /** @type {Map<string, StreamBuffer>} */
  #streams = new Map();
  /** @type {bigint | null} */
  #nextNs = null;
  #hasBegun = false;
  /** @type {{windows: Recent[]}} */
  #recent = { windows: [] };
  #hanging = new Hanging();

  /**
   * @param {Model} model
   * @param {{hopS?: number, smoothS?: number}} [settings]  seconds from one window's start to the next one's, else half a window; windows
   *   that start at most so much earlier are averaged with a window, else a window's length, 0 is none
   * @throws {ModelFileError} the model cannot be fed from a stream.
   * @throws {DataError} a hop or a smoothing that cannot be.
   */
  constructor(model, { hopS, smoothS } = {}) {
    this.metadata = model.metadata;
    checkCanBeFed(this.metadata);
    this.#model = model;
    this.#lengthNs = nanoseconds(this.metadata.window_s);
    this.#hopNs = hopS === undefined ? this.#lengthNs / 2n : nanoseconds(hopS);
    this.#smoothNs = smoothS === undefined ? this.#lengthNs : nanoseconds(smoothS);
    if (!(0n < this.#hopNs && this.#hopNs <= this.#lengthNs) || this.#smoothNs < 0n) {
      const length = general(this.metadata.window_s, 6);
      throw new DataError(`expected a hop in (0, ${length}] s and smoothing from 0 s on, found ${hopS} and ${smoothS}`);
    }
    this.#units = unitsOf(this.metadata);
    this.reset();
  }

  /** Forget all samples and answers, as after a clock was set or another person puts the sensors on. */
  reset() {
    this.#streams = new Map(Array.from(this.#units.keys(), (name) => [name, new StreamBuffer(name)]));
    this.#nextNs = null;
    this.#hasBegun = false;
    this.#recent = { windows: [] }; // another object: answers that are still being computed are smoothed with the old ones
    this.#hanging = new Hanging();
  }

  /**
   * Take samples of one sensor, and return the answers of the windows that are complete with them, mostly none or one. The samples are
   * taken before this returns; only the answers have to be waited for, and come in order however many calls are under way.
   *
   * @param {string} stream  its name: a modality of the model, or a part of `a+b`
   * @param {import("./stream_buffer.js").Times} timesNs  `[n]`, when each was measured, on one clock for all sensors; at any rate
   * @param {import("./stream_buffer.js").Samples} samples  `[n][channels]`, in the model's unit; NaN where the sensor gave nothing
   * @param {{unit?: string}} [known]  theirs, if somebody knows it: then another one than the model's is an error, not a guess
   * @returns {Promise<Answer[]>}
   * @throws {DataError} what was given cannot be samples of this stream; nothing of it was taken.
   */
  async add(stream, timesNs, samples, { unit } = {}) {
    const buffer = this.#streams.get(stream);
    if (!buffer) {
      const known = [...this.#streams.keys()].join(", ");
      throw new DataError(`stream '${stream}': expected one of ${known}, which this model was trained on`);
    }
    if (unit !== undefined && unit !== this.#units.get(stream)) {
      throw new DataError(`stream '${stream}': expected samples in ${this.#units.get(stream)}, found ${unit}: convert them`);
    }
    const chunk = buffer.checked(timesNs, samples);
    if (chunk.times.length) {
      const first = chunk.times[0];
      this.#checkClock(stream, first);
      this.#checkChannels(stream, chunk.channels);
      buffer.add(chunk);
      if (!this.#hasBegun && (this.#nextNs === null || first < this.#nextNs)) this.#nextNs = first;
    }
    const windows = this.#complete().map((startNs) => this.#cut(startNs));
    for (const each of this.#streams.values()) each.forgetBefore(this.#nextNs ?? 0n);
    const recent = this.#recent;
    return this.#inTurn.after(() => this.#answers(windows, recent));
  }

  /** @param {string} stream @param {bigint} firstNs */
  #checkClock(stream, firstNs) {
    const ahead = newestOf([...this.#streams.values()].filter(({ name }) => name !== stream));
    if (ahead === null || ahead.lastNs - firstNs <= MAX_APART_NS) return;
    const behindS = general(Number(ahead.lastNs - firstNs) / Number(NS), 3);
    throw new DataError(
      `stream '${stream}': expected times on one clock with '${ahead.name}', found them ${behindS} s behind: give all ` +
        "sensors' times on one clock, or call reset() if it was set",
    );
  }

  /** @param {string} stream @param {number} found */
  #checkChannels(stream, found) {
    for (const modality of this.metadata.modalities) {
      const parts = modality.name.split(JOIN);
      const others = parts.filter((part) => part !== stream).map((part) => this.#buffer(part).channels);
      const sum = others.reduce((total, each) => total + each, 0);
      // Of a joined modality the split is known when all of its streams have come.
      if (parts.includes(stream) && others.every(Boolean) && found + sum !== modality.channels) {
        throw new DataError(
          `stream '${stream}': expected ${modality.channels - sum} channels as in training, found ${found}: give the same ` +
            "axes, in the same order",
        );
      }
    }
  }

  /** @param {string} name */
  #buffer(name) {
    return /** @type {StreamBuffer} */ (this.#streams.get(name));
  }

  /** Return where complete windows start, and move on behind them; stretches without any sample have no windows. */
  #complete() {
    /** @type {bigint[]} */
    const starts = [];
    const streams = [...this.#streams.values()];
    const newest = newestOf(streams);
    while (newest && this.#nextNs !== null && this.#isComplete(this.#nextNs, newest.lastNs)) {
      const [startNs, endNs] = [this.#nextNs, this.#nextNs + this.#lengthNs];
      this.#hasBegun = true;
      if (streams.some((each) => each.hasAny(startNs, endNs))) {
        starts.push(startNs);
        this.#nextNs += this.#hopNs;
      } else {
        this.#nextNs += this.#hopNs * this.#emptyHops(startNs);
      }
    }
    return starts;
  }

  /**
   * Return how many hops further the first window with a sample starts.
   *
   * @param {bigint} startNs
   */
  #emptyHops(startNs) {
    const firsts = [...this.#streams.values()].map((each) => each.firstTimeFrom(startNs)).filter((time) => time !== null);
    const first = firsts.reduce((least, time) => (time < least ? time : least));
    const hops = (first - this.#lengthNs - startNs) / this.#hopNs + 1n;
    return hops > 1n ? hops : 1n;
  }

  /** @param {bigint} startNs @param {bigint} newestNs */
  #isComplete(startNs, newestNs) {
    const endNs = startNs + this.#lengthNs;
    if (newestNs >= endNs + PATIENCE_NS) return true;
    return this.metadata.modalities.every((modality) => {
      const neededNs = endNs - nanoseconds(1 / modality.rate_hz) - TIME_SLACK_NS;
      return modality.name.split(JOIN).every((part) => {
        const { lastNs } = this.#buffer(part);
        return lastNs !== null && lastNs >= neededNs;
      });
    });
  }

  /**
   * @param {bigint} startNs
   * @returns {Cut}
   */
  #cut(startNs) {
    /** @type {Map<string, Window>} */
    const inputs = new Map();
    const leftOut = new Map();
    let isDoubtful = false;
    for (const modality of this.metadata.modalities) {
      try {
        const parts = this.#parts(modality, startNs);
        const doubts = parts
          .map(([name, window]) => implausible(name, this.#units.get(name) ?? "", window))
          .filter((doubt) => doubt !== null);
        if (doubts.length) {
          leftOut.set(modality.name, doubts.join("; "));
          isDoubtful = true;
        } else {
          inputs.set(
            modality.name,
            parts.flatMap(([, window]) => window),
          );
        }
      } catch (error) {
        if (!(error instanceof NotCoveredError)) throw error;
        leftOut.set(modality.name, error.message);
      }
    }
    return this.metadata.upright && inputs.size
      ? { startNs, isDoubtful, ...this.#upright(inputs, leftOut) }
      : { startNs, inputs, leftOut, isDoubtful };
  }

  /**
   * Return the inputs turned upright; before it is known how, none of them, and why.
   *
   * @param {Map<string, Window>} inputs
   * @param {Map<string, string>} leftOut
   * @returns {{inputs: Map<string, Window>, leftOut: Map<string, string>}}
   */
  #upright(inputs, leftOut) {
    const acceleration = inputs.get(ACCELEROMETER);
    if (acceleration) this.#hanging.look(acceleration);
    const turned = this.#hanging.turned(inputs);
    if (turned) return { inputs: turned, leftOut };
    const askew = Array.from(inputs.keys(), (name) => /** @type {const} */ ([name, this.#hanging.missing]));
    return { inputs: new Map(), leftOut: new Map([...leftOut, ...askew]) };
  }

  /**
   * @param {ModalityInput} modality
   * @param {bigint} startNs
   * @returns {[string, Window][]} by stream
   */
  #parts(modality, startNs) {
    return modality.name.split(JOIN).map((name) => {
      try {
        return [name, this.#buffer(name).cut(startNs, this.metadata.window_s, modality.time_steps)];
      } catch (error) {
        const lagNs = this.#lagNs(name, startNs);
        if (!(error instanceof NotCoveredError) || lagNs <= PATIENCE_NS) throw error;
        throw new NotCoveredError(`${error.message}, ${general(Number(lagNs) / Number(NS), 2)} s behind the others`);
      }
    });
  }

  /**
   * Return how far a stream that once came is behind a window's end.
   *
   * @param {string} name
   * @param {bigint} startNs
   */
  #lagNs(name, startNs) {
    const { lastNs } = this.#buffer(name);
    return lastNs === null ? 0n : startNs + this.#lengthNs - lastNs;
  }

  /**
   * @param {Cut[]} windows
   * @param {{windows: Recent[]}} recent
   */
  async #answers(windows, recent) {
    const answers = [];
    const numClasses = this.metadata.classes.length;
    for (let first = 0; first < windows.length; first += AT_ONCE) {
      const some = windows.slice(first, first + AT_ONCE);
      const { probabilities } = await this.#model.run(batchOf(this.metadata, some), some.length);
      for (const [row, window] of some.entries()) {
        const own = Float64Array.from(probabilities.subarray(row * numClasses, (row + 1) * numClasses));
        answers.push(this.#answer(window, own, recent));
      }
    }
    return answers;
  }

  /**
   * Return the answer of a window with probabilities `[classes]`, averaged with those before it.
   *
   * @param {Cut} window
   * @param {Float64Array} own
   * @param {{windows: Recent[]}} recent
   * @returns {Answer}
   */
  #answer(window, own, recent) {
    const oldest = window.startNs - this.#smoothNs - TIME_SLACK_NS;
    recent.windows = recent.windows.filter(({ startNs }) => startNs >= oldest);
    const saysSomething = window.inputs.size > 0 && !window.isDoubtful && own.every(Number.isFinite);
    let probabilities = own.map(() => 1 / own.length);
    if (saysSomething) {
      recent.windows.push({ startNs: window.startNs, own });
      probabilities = own.map((_, k) => recent.windows.reduce((sum, each) => sum + each.own[k], 0) / recent.windows.length);
    }
    const confidence = Math.max(...probabilities);
    const isSure = saysSomething && confidence >= this.metadata.threshold;
    return {
      startNs: window.startNs,
      endNs: window.startNs + this.#lengthNs,
      activity: isSure ? this.metadata.classes[probabilities.indexOf(confidence)] : null,
      confidence,
      probabilities,
      leftOut: window.leftOut,
    };
  }
}

/**
 * Return the stream whose samples reach furthest, null where none has any.
 *
 * @param {StreamBuffer[]} streams
 */
function newestOf(streams) {
  const begun = streams.flatMap(({ name, lastNs }) => (lastNs === null ? [] : [{ name, lastNs }]));
  return begun.length ? begun.reduce((newest, each) => (each.lastNs > newest.lastNs ? each : newest)) : null;
}

/** @param {number} seconds */
function nanoseconds(seconds) {
  return BigInt(Math.round(seconds * Number(NS)));
}

/** @param {ModelMetadata} metadata */
function checkCanBeFed(metadata) {
  if (!metadata.window_s) {
    throw new ModelFileError(
      "this model's windows are whole trials, which nobody cuts out of a live stream: train with data.window-s set, or give whole " +
        "trials to OnnxModel.run yourself",
    );
  }
  if (metadata.same_side) {
    throw new ModelFileError(
      "this model wants sensors of the other side of the body mirrored (data.same-side), which takes a whole recording in which " +
        "somebody lies down: train with data.same-side=false for live sensors, or prepare recordings for OnnxModel.run yourself",
    );
  }
}

/**
 * Return the unit of each stream that the model's modalities are made of.
 *
 * @param {ModelMetadata} metadata
 * @returns {Map<string, string>}
 */
function unitsOf(metadata) {
  return new Map(
    metadata.modalities.flatMap(({ name, unit }) => {
      const units = unit.split(JOIN);
      return name.split(JOIN).map((part, i) => /** @type {[string, string]} */ ([part, units[i]]));
    }),
  );
}
