/** An exported model, opened with onnxruntime-web on one thread: `clmm_core/recognise/onnx_model.py`. */

import { ModelFileError } from "./errors.js";
import { checkSum, readGolden } from "./golden.js";
import { InTurn } from "./in_turn.js";
import * as ort from "./ort.wasm.bundle.min.js";

/** @typedef {import("./golden.js").Golden} Golden */

ort.env.wasm.numThreads = 1; // models this small are slower on several, and threads would need a server that sends COOP and COEP
ort.env.logLevel = "error";

/** What a model file says of itself, and its graph ready to run. */
export class OnnxModel {
  #session;
  #inTurn = new InTurn();

  /** @param {Golden} golden @param {any} session  onnxruntime-web's */
  constructor(golden, session) {
    this.golden = golden;
    this.metadata = golden.metadata;
    this.#session = session;
  }

  /**
   * Fetch a model and MODEL.golden.json beside it.
   *
   * @param {string | URL} file  of the model: model.onnx
   * @returns {Promise<OnnxModel>}
   * @throws {ModelFileError} one of them is not there, damaged, or not the other's.
   */
  static async load(file) {
    const [content, goldenContent] = await Promise.all([fetched(file), fetched(String(file).replace(/\.onnx$/, ".golden.json"))]);
    const golden = readGolden(new TextDecoder().decode(goldenContent), `golden vectors of ${file}`);
    await checkSum(content, golden, String(file));
    return new OnnxModel(golden, await session(content, golden, String(file)));
  }

  /**
   * Return logits and probabilities of raw windows.
   *
   * @param {Map<string, Float32Array>} feeds  by modality `[count, channels, time_steps]` in its unit; NaN where a window lacks it
   * @param {number} count
   * @returns {Promise<{logits: Float32Array, probabilities: Float32Array}>} `[count, classes]`
   */
  async run(feeds, count) {
    const tensors = Object.fromEntries(
      this.metadata.modalities.map(({ name, channels, time_steps: steps }) => [
        name,
        new ort.Tensor("float32", /** @type {Float32Array} */ (feeds.get(name)), [count, channels, steps]),
      ]),
    );
    // A session is not made for two runs at once.
    const { logits, probabilities } = await this.#inTurn.after(() => this.#session.run(tensors));
    return { logits: logits.data, probabilities: probabilities.data };
  }
}

/** @param {string | URL} file */
async function fetched(file) {
  let response;
  try {
    response = await fetch(file);
  } catch (error) {
    throw new ModelFileError(`${file}: cannot be fetched (${error}): is the server still there?`);
  }
  if (!response.ok) throw new ModelFileError(`${file}: expected a file beside this page, the server says ${response.status}: export again`);
  return new Uint8Array(await response.arrayBuffer());
}

/**
 * Return the session of a graph that takes and gives what its metadata say.
 *
 * @param {Uint8Array} content
 * @param {Golden} golden
 * @param {string} where
 */
async function session(content, golden, where) {
  let opened;
  try {
    opened = await ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new ModelFileError(`${where}: expected an ONNX model, cannot open it (${error}): get the file again`);
  }
  const expected = golden.metadata.modalities.map(({ name, channels, time_steps: steps }) => [name, channels, steps].join(" "));
  const found = opened.inputMetadata.map((/** @type {any} */ input) => [input.name, ...input.shape.slice(1)].join(" "));
  if (expected.join() !== found.join() || opened.outputNames.join() !== "logits,probabilities") {
    throw new ModelFileError(`${where}: its metadata speak of inputs ${expected}, its graph has ${found}: get the file again`);
  }
  return opened;
}
