/** Whether samples can be in the unit that the model was trained in: `clmm_core/recognise/plausible.py`, with its bounds. */

import { general } from "./errors.js";
import { median } from "./stream_buffer.js";

const AXES = 3;
const STANDARD_GRAVITY = 9.80665;
const GRAVITY = [4, 30];
const WITHOUT_GRAVITY = ["linear", "user"];
const TURNING = 15;
const LARGEST = 1e6;

/**
 * Return in words why a stream's window cannot be in this unit, or null where it can.
 *
 * @param {string} name
 * @param {string} unit
 * @param {import("./stream_buffer.js").Window} window  `[channels][time]`, finite
 * @returns {string | null}
 */
export function implausible(name, unit, window) {
  const largest = Math.max(...window.map((channel) => channel.reduce((most, value) => Math.max(most, Math.abs(value)), 0)));
  if (largest > LARGEST) return `expected ${unit}, found samples up to ${general(largest, 2)}`;
  if (window.length !== AXES) return null;
  const lengths = Array.from(window[0], (_, step) => Math.hypot(...window.map((channel) => channel[step]))); // [time]
  if (unit === "m/s^2" && !WITHOUT_GRAVITY.some((word) => name.toLowerCase().includes(word))) {
    const middle = median(lengths);
    if (!(GRAVITY[0] <= middle && middle <= GRAVITY[1])) {
      return (
        `expected m/s^2 with gravity, a length of about ${STANDARD_GRAVITY.toFixed(1)} at rest, found ${general(middle, 2)}: ` +
        "is it in g or mg, or without gravity?"
      );
    }
  }
  const mean = lengths.reduce((sum, length) => sum + length, 0) / lengths.length;
  return unit === "rad/s" && mean > TURNING ? `expected rad/s, found ${mean.toFixed(0)} in the mean: is it in deg/s?` : null;
}
