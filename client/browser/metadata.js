/** What an exported model says of itself: `clmm_core/recognise/metadata.py`, with the names of its JSON. */

import { ModelFileError } from "./errors.js";

export const FORMAT = 1;
export const AGAIN = "export the model again with this version: clmm export RUN --to browser";

/**
 * One input of the graph, `[batch, channels, time_steps]` float32 in `unit`; NaN where a window lacks it.
 *
 * @typedef {object} ModalityInput
 * @property {string} name  `a+b` is made of the channels of the streams a and b, in this order
 * @property {string} unit  SI; of `a+b` both units, with a plus
 * @property {number} channels
 * @property {number} rate_hz  0 where a window is a whole trial
 * @property {number} time_steps
 */

/**
 * @typedef {object} ModelMetadata
 * @property {number} format
 * @property {string} run
 * @property {number} server_round
 * @property {string} trained_on
 * @property {string} licence
 * @property {string} weights_sha256
 * @property {string} precision
 * @property {ModalityInput[]} modalities  in the order of the graph's inputs
 * @property {number} window_s  0 where a window is a whole trial
 * @property {string[]} classes  in the order of the graph's outputs
 * @property {boolean} upright
 * @property {boolean} same_side
 * @property {number} temperature
 * @property {number} threshold  the least probability of an answer
 * @property {string} calibrated_on
 */

const MODALITY = { name: "string", unit: "string", channels: "number", rate_hz: "number", time_steps: "number" };
const METADATA = {
  ...{ format: "number", run: "string", server_round: "number", trained_on: "string", licence: "string" },
  ...{ weights_sha256: "string", precision: "string", modalities: "array", window_s: "number", classes: "array" },
  ...{ upright: "boolean", same_side: "boolean", temperature: "number", threshold: "number", calibrated_on: "string" },
};

/**
 * Return metadata as they were parsed from JSON, checked.
 *
 * @param {any} found
 * @param {string} where  the file, for messages
 * @returns {ModelMetadata}
 * @throws {ModelFileError} they are something else, or hold values that cannot be.
 */
export function checkedMetadata(found, where) {
  expectFields(found, METADATA, where, "metadata");
  found.modalities.forEach((/** @type {unknown} */ each) => expectFields(each, MODALITY, where, "metadata.modalities"));
  /** @type {ModelMetadata} */
  const metadata = found;
  const names = metadata.modalities.map(({ name }) => name);
  const isCount = (/** @type {number} */ value) => Number.isInteger(value) && value >= 1;
  const wrong =
    (metadata.format !== FORMAT && `format ${metadata.format} instead of ${FORMAT}`) ||
    (!areDifferent(names, 1) && `modalities ${names.join(", ")}`) ||
    (!areDifferent(metadata.classes, 2) && `classes ${metadata.classes.join(", ")}`) ||
    (!metadata.modalities.every(({ channels, time_steps: steps }) => isCount(channels) && isCount(steps)) && "sizes that cannot be") ||
    (metadata.modalities.some(({ rate_hz: rate }) => rate < 0 || (rate === 0) !== (metadata.window_s === 0)) && "a rate that cannot be") ||
    (metadata.modalities.some(({ name, unit }) => name.split("+").length !== unit.split("+").length) && "not a unit a stream") ||
    (!(metadata.window_s >= 0) && `a window of ${metadata.window_s} s`) ||
    (!(metadata.temperature > 0) && `temperature ${metadata.temperature}`) ||
    (!(metadata.threshold >= 0 && metadata.threshold <= 1) && `threshold ${metadata.threshold}`);
  if (wrong) throw new ModelFileError(`${where}: expected a model's metadata, found ${wrong}: ${AGAIN}`);
  return metadata;
}

/**
 * Refuse an object that has not exactly these fields, of these kinds.
 *
 * @param {any} found
 * @param {Record<string, string>} kinds  by field: what `typeof` says, or "array"
 * @param {string} where
 * @param {string} what
 * @throws {ModelFileError}
 */
export function expectFields(found, kinds, where, what) {
  const kindOf = (/** @type {unknown} */ value) => (Array.isArray(value) ? "array" : typeof value);
  const isObject = kindOf(found) === "object" && found !== null;
  const wrong = isObject
    ? [...new Set([...Object.keys(kinds), ...Object.keys(found)])].filter((field) => kindOf(found[field]) !== kinds[field])
    : [what];
  if (wrong.length)
    throw new ModelFileError(`${where}: ${what}: fields too many, too few or of another kind: ${wrong.join(", ")}: ${AGAIN}`);
}

/**
 * Return windows as the graph takes them, by modality `[windows, channels, time_steps]`, NaN where absent.
 *
 * @param {ModelMetadata} metadata
 * @param {{inputs: Map<string, ArrayLike<ArrayLike<number>>>}[]} windows  each by modality `[channels][time_steps]`
 * @returns {Map<string, Float32Array>}
 */
export function batchOf(metadata, windows) {
  return new Map(
    metadata.modalities.map(({ name, channels, time_steps: steps }) => {
      const values = new Float32Array(windows.length * channels * steps).fill(NaN);
      for (const [row, { inputs }] of windows.entries()) {
        Array.from(inputs.get(name) ?? []).forEach((samples, channel) => values.set(samples, (row * channels + channel) * steps));
      }
      return [name, values];
    }),
  );
}

/** @param {string[]} names @param {number} atLeast */
function areDifferent(names, atLeast) {
  return names.length >= atLeast && new Set(names).size === names.length && names.every((name) => typeof name === "string");
}
