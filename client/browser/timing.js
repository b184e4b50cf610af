/** How long a model takes for a window, on this machine. */

import { oneWindow } from "./golden.js";

/**
 * Return the milliseconds of one window, measured so many times.
 *
 * @param {import("./onnx_model.js").OnnxModel} model
 * @param {number} times
 * @param {number} atOnce  windows, one after the other, that a measurement is the mean of: a page that is not isolated (COOP, COEP) has a
 *   clock of 100 microseconds or more, and needs some
 * @returns {Promise<number[]>} `[times]`
 */
export async function windowTimes(model, times, atOnce) {
  const window = oneWindow(model.golden);
  const found = [];
  for (let turn = 0; turn < times; turn += 1) {
    const began = performance.now();
    for (let each = 0; each < atOnce; each += 1) await model.run(window, 1);
    found.push((performance.now() - began) / atOnce);
  }
  return found;
}
