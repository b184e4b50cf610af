/**
 * The newest samples of one sensor with the times at which they were measured, from which windows are cut as in training:
 * `clmm_core/recognise/stream_buffer.py`, whose constants these are, with the same meaning.
 *
 * Times are BigInt nanoseconds, as Python's int64: since 1970 they are above 2^53, where a Number has no single nanoseconds left. Only
 * differences within a window become Numbers, in seconds.
 */

import { DataError, general } from "./errors.js";

export const NS = 1_000_000_000n;
export const TIME_SLACK_NS = 1000n;
const NS_A_SECOND = Number(NS);
const LATEST_NS = 2n ** 62n;
const MAX_GAP_S = 0.5;
const MAX_GAP_SAMPLES = 2.5;
const SLACK_SAMPLES = 1.5;
const ON_SAMPLE = 1e-6;
const MAX_RATE_HZ = 2000;
const RATE_SAMPLES = 33;
const BURST = 4;
const SLOWEST = 0.5;
const KEPT_NS = 2n * NS;
const FIRST_CAPACITY = 512;

/** @typedef {Float32Array[]} Window  `[channels][time]`. */
/** @typedef {ArrayLike<bigint | number>} Times  `[n]`, nanoseconds; Numbers are rounded to whole ones. */
/** @typedef {ArrayLike<ArrayLike<number>>} Samples  `[n][channels]`. */
/** @typedef {{times: bigint[], rows: ArrayLike<number>[], channels: number}} Checked  A chunk that can be added. */

/** A window cannot be cut, for the reason in the message, which becomes a part of the answer. */
export class NotCoveredError extends Error {}

/** One sensor's samples in order of time, in arrays that are filled from the left and moved back when they are full. */
export class StreamBuffer {
  /** Of a sample; 0 before the first one. */
  channels = 0;
  /** @type {bigint | null} Time of the newest sample that ever came; it stays when samples are let go. */
  lastNs = null;
  #times = new BigInt64Array(FIRST_CAPACITY);
  #samples = new Float32Array(0); // [capacity, channels]
  #first = 0; // those before it are let go
  #end = 0;

  /** @param {string} name */
  constructor(name) {
    this.name = name;
  }

  /** How many samples are kept. */
  get length() {
    return this.#end - this.#first;
  }

  /**
   * Return a chunk as it can be added, without samples at a time that has one already.
   *
   * @param {Times} times
   * @param {Samples} samples
   * @returns {Checked}
   * @throws {DataError} shapes that do not fit, times that are no nanoseconds or go back; nothing was added.
   */
  checked(times, samples) {
    const channels = this.#checkShapes(times, samples);
    const whole = Array.from(times, (time) => this.#nanoseconds(time));
    const isNew = this.#checkOrder(whole);
    const numNew = isNew.filter(Boolean).length;
    if (whole.length >= BURST && numNew * 2 < whole.length) {
      const same = `${whole.length - numNew} of ${whole.length} times the same`;
      throw new DataError(`stream '${this.name}': expected each sample's own time in nanoseconds, found ${same}: give seconds times 1e9`);
    }
    const newTimes = whole.filter((_, row) => isNew[row]);
    this.#checkRate(newTimes);
    return { times: newTimes, rows: Array.from(samples).filter((_, row) => isNew[row]), channels };
  }

  /** @param {Times} times @param {Samples} samples */
  #checkShapes(times, samples) {
    const channels = samples.length ? samples[0].length : this.channels;
    const isTable = times.length === samples.length && Array.from(samples).every((row) => row.length === channels && channels > 0);
    const areNumbers =
      isTable &&
      Array.from(times).every((time) => typeof time === "bigint" || typeof time === "number") &&
      Array.from(samples).every((row) => Array.from(row).every((value) => typeof value === "number"));
    if (!areNumbers) {
      const found = isTable ? "something else than numbers" : `${times.length} times and ${samples.length} samples`;
      throw new DataError(`stream '${this.name}': expected numbers, times [n] and samples [n, channels], found ${found}`);
    }
    if (this.length && channels !== this.channels) {
      throw new DataError(`stream '${this.name}': expected ${this.channels} channels as before, found ${channels}`);
    }
    return channels;
  }

  /** @param {bigint | number} time */
  #nanoseconds(time) {
    const whole = typeof time === "bigint" ? time : Number.isFinite(time) ? BigInt(Math.round(time)) : LATEST_NS;
    if (whole >= LATEST_NS || whole <= -LATEST_NS) {
      throw new DataError(`stream '${this.name}': expected a time in nanoseconds for each sample, found NaN or one beyond int64`);
    }
    return whole;
  }

  /**
   * Return for each time whether it is later than the one before.
   *
   * @param {bigint[]} whole
   */
  #checkOrder(whole) {
    let before = this.lastNs;
    return whole.map((time) => {
      if (before !== null && time < before) {
        throw new DataError(
          `stream '${this.name}': expected times that never go back, found ${time} ns after ${before} ns: ` +
            "drop what comes late, or call reset() if the clock was set",
        );
      }
      const isNew = before === null || time > before;
      before = time;
      return isNew;
    });
  }

  /** @param {bigint[]} times */
  #checkRate(times) {
    const kept = this.#times.subarray(Math.max(this.#first, this.#end - RATE_SAMPLES), this.#end);
    const newest = [...kept, ...times];
    if (newest.length < RATE_SAMPLES) return;
    const periodS = median(newest.slice(1).map((time, row) => Number(time - newest[row]))) / NS_A_SECOND;
    if (periodS * MAX_RATE_HZ < 1) {
      throw new DataError(
        `stream '${this.name}': expected times in nanoseconds, found a sample every ${general(periodS, 2)} s: ` + "give seconds times 1e9",
      );
    }
  }

  /**
   * Take a checked chunk.
   *
   * @param {Checked} chunk
   */
  add({ times, rows, channels }) {
    if (!times.length) return;
    this.channels = channels;
    this.#makeRoom(times.length);
    for (const [row, time] of times.entries()) {
      this.#times[this.#end] = time;
      this.#samples.set(rows[row], this.#end * channels); // what float32 does not hold becomes infinite, and rules its window out
      this.#end += 1;
    }
    this.lastNs = times[times.length - 1];
  }

  /** @param {number} count */
  #makeRoom(count) {
    const needed = this.length + count;
    if (this.#samples.length === this.#times.length * this.channels && this.#end + count <= this.#times.length) return;
    let capacity = this.#times.length;
    while (capacity < 2 * needed) capacity *= 2;
    const [times, samples] = [new BigInt64Array(capacity), new Float32Array(capacity * this.channels)];
    times.set(this.#times.subarray(this.#first, this.#end));
    samples.set(this.#samples.subarray(this.#first * this.channels, this.#end * this.channels));
    [this.#times, this.#samples, this.#end, this.#first] = [times, samples, this.length, 0];
  }

  /**
   * Let go of samples that no window from `startNs` on needs.
   *
   * @param {bigint} startNs
   */
  forgetBefore(startNs) {
    this.#first = this.#firstFrom(startNs - KEPT_NS);
  }

  /**
   * Return whether a sample was measured from start to before end.
   *
   * @param {bigint} startNs
   * @param {bigint} endNs
   */
  hasAny(startNs, endNs) {
    return this.#firstFrom(endNs) > this.#firstFrom(startNs);
  }

  /**
   * Return the first time from `startNs` on, null where there is none.
   *
   * @param {bigint} startNs
   */
  firstTimeFrom(startNs) {
    const row = this.#firstFrom(startNs);
    return row < this.#end ? this.#times[row] : null;
  }

  /**
   * Return one window by linear interpolation between the samples, as training cuts its own.
   *
   * @param {bigint} startNs
   * @param {number} lengthS
   * @param {number} steps
   * @returns {Window} `[channels][steps]`
   * @throws {NotCoveredError} the samples do not cover it, have a gap, are too few a second or not finite.
   */
  cut(startNs, lengthS, steps) {
    const endNs = startNs + BigInt(Math.round(lengthS * NS_A_SECOND));
    // Up to the first sample at or after the last of the wanted times, so that a window does not depend on what has come beyond it.
    const lastWanted = endNs - BigInt(Math.round((lengthS / steps) * NS_A_SECOND)) - TIME_SLACK_NS;
    const end = Math.min(this.#firstFrom(lastWanted) + 1, this.#end);
    const first = this.#firstFrom(startNs - KEPT_NS);
    const timesS = Array.from(this.#times.subarray(first, end), (time) => Number(time - startNs) / NS_A_SECOND);
    if (timesS.length < 2 || !this.hasAny(startNs, endNs)) throw new NotCoveredError("no samples");
    const periodS = median(timesS.slice(1).map((time, row) => time - timesS[row]));
    const slackS = SLACK_SAMPLES * periodS;
    if (1 / periodS < (SLOWEST * steps) / lengthS) {
      const trained = general(steps / lengthS, 3);
      throw new NotCoveredError(`${general(1 / periodS, 3)} Hz, where the model was trained at ${trained} Hz`);
    }
    if (timesS[0] > slackS || timesS[timesS.length - 1] + periodS < lengthS - slackS) {
      throw new NotCoveredError("samples for a part of the window only");
    }
    const samples = this.#samples.subarray(first * this.channels, end * this.channels);
    const wantedS = Array.from({ length: steps }, (_, step) => (step * lengthS) / steps);
    const window = interpolated(timesS, samples, wantedS, periodS);
    if (!window.every((channel) => channel.every(Number.isFinite))) throw new NotCoveredError("NaN or infinite samples");
    return window;
  }

  /**
   * Return the row of the first kept sample at or after a time.
   *
   * @param {bigint} time
   */
  #firstFrom(time) {
    let [low, high] = [this.#first, this.#end];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#times[middle] < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/**
 * Return `[channels][wanted]`; before the first and after the last sample, those.
 *
 * @param {number[]} timesS  `[n]`, ascending
 * @param {Float32Array} samples  `[n, channels]`
 * @param {number[]} wantedS  ascending
 * @param {number} periodS
 * @returns {Window}
 * @throws {NotCoveredError} a wanted time lies in a longer gap.
 */
function interpolated(timesS, samples, wantedS, periodS) {
  const channels = samples.length / timesS.length;
  const window = Array.from({ length: channels }, () => new Float32Array(wantedS.length));
  const last = timesS.length - 1;
  let longestS = 0;
  let below = 0;
  for (const [step, wanted] of wantedS.entries()) {
    while (below < last && timesS[below + 1] <= wanted) below += 1;
    const above = Math.min(below + 1, last);
    const [gapS, afterS, leftS] = [timesS[above] - timesS[below], wanted - timesS[below], timesS[above] - wanted];
    const isNext = gapS > 0 && leftS < ON_SAMPLE * periodS;
    const isBetween = afterS > ON_SAMPLE * periodS && leftS > ON_SAMPLE * periodS;
    if (isBetween) longestS = Math.max(longestS, gapS);
    const share = isBetween ? Math.fround(afterS / gapS) : 0;
    for (let channel = 0; channel < channels; channel += 1) {
      const from = samples[(isNext ? above : below) * channels + channel];
      window[channel][step] = share > 0 ? from * (1 - share) + samples[above * channels + channel] * share : from;
    }
  }
  if (longestS > Math.max(MAX_GAP_S, MAX_GAP_SAMPLES * periodS)) {
    throw new NotCoveredError(`a gap of ${general(longestS, 2)} s`);
  }
  return window;
}

/**
 * Return the middle value, of an even number the mean of both.
 *
 * @param {ArrayLike<number>} values  at least one
 */
export function median(values) {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
