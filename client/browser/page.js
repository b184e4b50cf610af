/** The page: loads its model, checks it, and shows what it recognises. What it shows is text, never markup. */

import { general, ModelFileError } from "./errors.js";
import { goldenCheck, inWords } from "./golden.js";
import { listenToMotion } from "./motion.js";
import { OnnxModel } from "./onnx_model.js";
import { inStep, readStream } from "./recording.js";
import { Recogniser } from "./recogniser.js";
import { median } from "./stream_buffer.js";
import { windowTimes } from "./timing.js";

/** @typedef {import("./recogniser.js").Answer} Answer */

const SHOWN = 20; // answers in the table
const NOT_CHECKED = "Not checked yet.";
const [TURNS, AT_ONCE] = [20, 5];

/** @param {string} id @returns {any} */
const element = (id) => document.getElementById(id);
/** @param {string} id @param {string} text */
const say = (id, text) => {
  if (element(id).textContent !== text) element(id).textContent = text; // a screen reader reads what changes
};

/** Ends what `listenToMotion` began. */
let stopListening = () => {};
/** @type {bigint | null} Where the first window shown began; the table counts from there. */
let originNs = null;
/** What other modules and measurements wait for: the model, or null where the page refuses it. */
export const ready = start();

/** @returns {Promise<{model: OnnxModel | null}>} */
async function start() {
  const model = await opened().catch(refuse);
  if (model) await offer(model).catch(refuse);
  return { model };
}

/** Return the model that lies beside this page, checked. */
async function opened() {
  const model = await OnnxModel.load("model.onnx");
  describe(model);
  const check = await goldenCheck(model);
  performance.mark("model-ready");
  if (!check.passed) throw new ModelFileError(inWords(check));
  say("check", inWords(check));
  return model;
}

/** @param {unknown} error */
function refuse(error) {
  say("activity", "Cannot recognise");
  if (element("check").textContent === NOT_CHECKED) say("check", "It does not: nothing is recognised with it.");
  tell(error);
  return null;
}

/** @param {OnnxModel} model */
function describe({ metadata }) {
  const rows = {
    Recognises: metadata.classes.join(", "),
    From: metadata.modalities
      .map((each) => `${each.name}, ${each.channels} axes in ${each.unit.replaceAll("^2", "²")} at ${general(each.rate_hz, 4)} Hz`)
      .join("; "),
    Windows: metadata.window_s ? `${general(metadata.window_s, 4)} s` : "whole trials",
    "Trained on": metadata.trained_on,
    Run: `${metadata.run}, round ${metadata.server_round}`,
    "Not sure": `below ${general(metadata.threshold, 3)}, chosen on ${metadata.calibrated_on}`,
    Precision: metadata.precision,
    Licence: metadata.licence,
  };
  const terms = Object.entries(rows).flatMap(([term, text]) => [node("dt", term), node("dd", text)]);
  element("model").replaceChildren(...terms);
}

/**
 * Let the wearer begin.
 *
 * @param {OnnxModel} model
 */
async function offer(model) {
  const recogniser = new Recogniser(model);
  const times = await windowTimes(model, TURNS, AT_ONCE);
  say("speed", `A window takes ${general(median(times), 2)} ms here (median of ${TURNS} times ${AT_ONCE}).`);
  say("activity", "Ready");
  const known = new Set(model.metadata.modalities.flatMap(({ name }) => name.split("+")));
  element("motion").disabled = !known.has("accelerometer") && !known.has("gyroscope");
  if (element("motion").disabled) say("detail", `A phone's browser has none of its sensors (${[...known].join(", ")}): give recordings.`);
  element("files").disabled = false;
  element("motion").addEventListener("click", () => recogniseMotion(recogniser, known).catch(tell));
  element("stop").addEventListener("click", () => end());
  element("files").addEventListener("change", () => recogniseFiles(recogniser).catch(tell));
}

/** @param {Recogniser} recogniser @param {Set<string>} known */
async function recogniseMotion(recogniser, known) {
  begin(recogniser);
  stopListening = await listenToMotion((measured) => {
    for (const { stream, unit, timeNs, sample } of measured.filter((each) => known.has(each.stream))) {
      recogniser.add(stream, [timeNs], [sample], { unit }).then((answers) => show(answers, recogniser.metadata.threshold), end);
    }
  }, end);
  say("activity", "Listening");
  element("motion").hidden = true;
  element("stop").hidden = false;
  element("stop").focus();
}

/**
 * Stop listening to the sensors, because somebody said so or for a reason that is shown.
 *
 * @param {unknown} [reason]
 */
function end(reason) {
  stopListening();
  if (reason instanceof Error) tell(reason);
  if (element("stop").hidden) return;
  element("stop").hidden = true;
  element("motion").hidden = false;
  element("motion").focus();
  say("activity", "Stopped");
}

/** @param {Recogniser} recogniser */
async function recogniseFiles(recogniser) {
  end();
  begin(recogniser);
  const files = [...element("files").files];
  const streams = await Promise.all(files.map(async (file) => readStream(file.name, await file.text())));
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const { stream, times, samples } of inStep(streams)) {
    const answers = await recogniser.add(stream, times, samples);
    show(answers, recogniser.metadata.threshold);
    for (const { activity } of answers) counts.set(activity ?? "not sure", (counts.get(activity ?? "not sure") ?? 0) + 1);
  }
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const each = [...counts].sort((a, b) => b[1] - a[1]).map(([name, count]) => `${name} ${count}`);
  say("sum", total ? `${total} windows: ${each.join(", ")}.` : "No window is complete: the recording is shorter than one.");
  element("files").value = ""; // so that the same files can be given again
}

/** @param {Recogniser} recogniser */
function begin(recogniser) {
  originNs = null;
  recogniser.reset();
  for (const id of ["problem", "detail", "sum"]) say(id, "");
  element("left-out").replaceChildren();
  element("last").tBodies[0].replaceChildren();
  element("last").hidden = true;
  element("none-yet").hidden = false;
}

/**
 * Show answers, the newest large.
 *
 * @param {Answer[]} answers
 * @param {number} threshold
 */
function show(answers, threshold) {
  for (const { activity, confidence, startNs, endNs, leftOut } of answers) {
    originNs ??= startNs;
    say("activity", activity ?? "Not sure");
    const share = `${(confidence * 100).toFixed(0)} %`;
    say(
      "detail",
      `${share} sure${activity ? "" : `; an answer needs ${(threshold * 100).toFixed(0)} %`}${leftOut.size ? ". Left out:" : ""}`,
    );
    element("left-out").replaceChildren(...Array.from(leftOut, ([name, why]) => node("li", `${name}: ${why}`)));
    const row = document.createElement("tr");
    const cells = [`${(Number(endNs - originNs) / 1e9).toFixed(1)} s`, activity ?? "not sure", share];
    row.replaceChildren(...cells.map((text) => node("td", text)));
    row.lastElementChild?.classList.add("number");
    const body = element("last").tBodies[0];
    body.prepend(row);
    while (body.rows.length > SHOWN) body.deleteRow(-1);
  }
  element("last").hidden = !element("last").tBodies[0].rows.length;
  element("none-yet").hidden = !element("last").hidden;
}

/** @param {string} tag @param {string} text */
function node(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

/** @param {unknown} error */
function tell(error) {
  say("problem", wordsOf(error));
}

/** @param {unknown} error */
function wordsOf(error) {
  return error instanceof Error ? error.message : String(error);
}
