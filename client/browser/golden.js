/**
 * MODEL.golden.json: the checksum and the metadata of a model file (onnxruntime-web does not give those inside it), and windows with
 * what it answers to them, so that a browser can tell that it has the right file and computes as it should.
 */

import { general, ModelFileError } from "./errors.js";
import { AGAIN, batchOf, checkedMetadata, expectFields, FORMAT } from "./metadata.js";

/** @typedef {import("./metadata.js").ModelMetadata} ModelMetadata */
/** @typedef {{inputs: Record<string, number[][]>, logits: number[], probabilities: number[]}} GoldenVector  Inputs by modality `[channels][time_steps]`, SI. */
/** @typedef {{format: number, model_sha256: string, metadata: ModelMetadata, tolerance: number, vectors: GoldenVector[]}} Golden */
/** @typedef {{passed: boolean, furthest: number, tolerance: number, numVectors: number}} Check  `furthest`: the largest difference. */

const GOLDEN = { format: "number", model_sha256: "string", metadata: "object", tolerance: "number", vectors: "array" };
const VECTOR = { inputs: "object", logits: "array", probabilities: "array" };

/**
 * Return the golden vectors that a text holds.
 *
 * @param {string} text  JSON
 * @param {string} where  the file, for messages
 * @returns {Golden}
 * @throws {ModelFileError} it holds something else.
 */
export function readGolden(text, where) {
  let golden;
  try {
    golden = JSON.parse(text);
  } catch (error) {
    throw new ModelFileError(`${where}: expected golden vectors as JSON, cannot read them (${error}): get the file again`);
  }
  expectFields(golden, GOLDEN, where, "golden vectors");
  if (golden.format !== FORMAT || !golden.vectors.length) {
    const found = `format ${golden.format}, ${golden.vectors.length} vectors`;
    throw new ModelFileError(`${where}: expected vectors of format ${FORMAT}, found ${found}: ${AGAIN}`);
  }
  checkedMetadata(golden.metadata, where);
  golden.vectors.forEach((/** @type {GoldenVector} */ vector, /** @type {number} */ row) => {
    expectFields(vector, VECTOR, where, `vector ${row}`);
    checkSizes(vector, golden.metadata, `${where}: vector ${row}`);
  });
  return golden;
}

/**
 * Refuse bytes that are not those the golden vectors were made with.
 *
 * @param {Uint8Array<ArrayBuffer>} content  the whole model file
 * @param {Golden} golden
 * @param {string} where
 * @throws {ModelFileError} another checksum, or a page to which the browser gives no SHA-256.
 */
export async function checkSum(content, golden, where) {
  if (!globalThis.isSecureContext) {
    throw new ModelFileError(
      "expected a page of https:// or of localhost, found another: there browsers give neither the motion sensors nor the SHA-256 that " +
        "tells whether the model is whole: open the page by https://, or through a port forwarded to localhost",
    );
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  const checksum = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (checksum !== golden.model_sha256) {
    const [expected, found] = [golden.model_sha256, checksum].map((digits) => `${digits.slice(0, 12)}…`);
    throw new ModelFileError(
      `${where}: checksum: expected SHA-256 ${expected}, found ${found}: the file was changed, or is another export's`,
    );
  }
}

/**
 * Return how far a model's answers, here, are from its golden ones.
 *
 * @param {import("./onnx_model.js").OnnxModel} model
 * @returns {Promise<Check>}
 */
export async function goldenCheck(model) {
  const { metadata, vectors, tolerance } = model.golden;
  const { logits, probabilities } = await model.run(batchOf(metadata, vectors.map(withMap)), vectors.length);
  const pairs = /** @type {const} */ ([
    [logits, vectors.flatMap((vector) => vector.logits)],
    [probabilities, vectors.flatMap((vector) => vector.probabilities)],
  ]);
  const differences = pairs.flatMap(([found, expected]) => expected.map((value, i) => Math.abs(found[i] - value)));
  const furthest = Math.max(...differences); // NaN where one of them is
  return { passed: furthest <= tolerance, furthest, tolerance, numVectors: vectors.length };
}

/**
 * Say in a sentence what a check found.
 *
 * @param {Check} check
 */
export function inWords({ passed, furthest, tolerance, numVectors }) {
  const difference = `largest difference ${general(furthest, 2)}, allowed ${general(tolerance, 2)}`;
  return passed
    ? `Passed: it answers here as where it was exported, on ${numVectors} golden vectors (${difference}).`
    : `Failed: it answers otherwise here than where it was exported, on ${numVectors} golden vectors (${difference}).`;
}

/**
 * Return the first golden window, which has all modalities, as a batch of one.
 *
 * @param {Golden} golden
 */
export function oneWindow({ metadata, vectors }) {
  return batchOf(metadata, [withMap(vectors[0])]);
}

/** @param {GoldenVector} vector */
function withMap({ inputs }) {
  return { inputs: new Map(Object.entries(inputs)) };
}

/** @param {GoldenVector} vector @param {ModelMetadata} metadata @param {string} where */
function checkSizes(vector, metadata, where) {
  for (const { name, channels, time_steps: steps } of metadata.modalities) {
    const window = vector.inputs[name];
    if (window !== undefined && (window.length !== channels || window.some((channel) => channel.length !== steps))) {
      throw new ModelFileError(`${where}, '${name}': expected [${channels}, ${steps}], found others: get the file again`);
    }
  }
  if ([vector.logits, vector.probabilities].some((answer) => answer.length !== metadata.classes.length)) {
    throw new ModelFileError(`${where}: expected ${metadata.classes.length} logits and probabilities, found others: get the file again`);
  }
}
