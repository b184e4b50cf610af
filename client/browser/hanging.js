/** How a sensor hangs on its wearer, found while it is worn: `clmm_core/recognise/hanging.py` and `clmm_core/data/upright.py`. */

/** @typedef {import("./stream_buffer.js").Window} Window */
/** @typedef {number[]} Vector  `[3]`. */

export const ACCELEROMETER = "accelerometer";
const GYROSCOPE = "gyroscope";
const AXES = 3;
const MOVING = 1; // m/s^2
const FEWEST_WINDOWS = 5;

/** The mean acceleration over the moving windows so far, which is gravity as the sensor sees it. */
export class Hanging {
  #sum = [0, 0, 0];
  #numMoving = 0;

  /**
   * Take one window into account.
   *
   * @param {Window} acceleration  `[3][time]`, m/s^2
   */
  look(acceleration) {
    const means = acceleration.map(mean);
    const variances = acceleration.map((channel, axis) => mean(channel.map((value) => (value - means[axis]) ** 2)));
    if (Math.sqrt(variances.reduce((sum, each) => sum + each)) <= MOVING) return;
    this.#sum = this.#sum.map((sum, axis) => sum + means[axis]);
    this.#numMoving += 1;
  }

  /**
   * Return a window's inputs with accelerometer and gyroscope upright, or null before enough movement was seen.
   *
   * @param {Map<string, Window>} inputs  by modality
   * @returns {Map<string, Window> | null}
   */
  turned(inputs) {
    const length = Math.hypot(...this.#sum);
    if (this.#numMoving < FEWEST_WINDOWS || !length) return null;
    const turn = minimalRotation(
      this.#sum.map((value) => value / length),
      nearestAxis(this.#sum),
    );
    const isTurned = (/** @type {string} */ name, /** @type {Window} */ window) =>
      (name === ACCELEROMETER || name === GYROSCOPE) && window.length === AXES;
    return new Map(Array.from(inputs, ([name, window]) => [name, isTurned(name, window) ? rotated(turn, window) : window]));
  }

  /** Say what has to happen before anything is turned. */
  get missing() {
    return `walk about, so that it shows how the sensor hangs: ${this.#numMoving} of ${FEWEST_WINDOWS} windows of movement so far`;
  }
}

/** @param {Float32Array} values */
function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/**
 * Return the unit vector along the signed axis that a direction is nearest to.
 *
 * @param {Vector} direction
 * @returns {Vector}
 */
function nearestAxis(direction) {
  const sizes = direction.map(Math.abs);
  const largest = sizes.indexOf(Math.max(...sizes));
  return direction.map((value, axis) => (axis === largest ? Math.sign(value) : 0));
}

/**
 * Return the rotation about `start x end` that takes one unit vector to another that is not opposite (Rodrigues' formula).
 *
 * @param {Vector} start
 * @param {Vector} end
 * @returns {Vector[]} `[3][3]`
 */
function minimalRotation(start, end) {
  const [x, y, z] = [start[1] * end[2] - start[2] * end[1], start[2] * end[0] - start[0] * end[2], start[0] * end[1] - start[1] * end[0]];
  const skew = [[0, -z, y], [z, 0, -x], [-y, x, 0]]; // prettier-ignore
  const along = 1 + start.reduce((sum, value, axis) => sum + value * end[axis], 0);
  return skew.map((row, i) =>
    row.map((value, j) => Number(i === j) + value + row.reduce((sum, each, k) => sum + each * skew[k][j], 0) / along),
  );
}

/**
 * @param {Vector[]} turn  `[3][3]`
 * @param {Window} window  `[3][time]`
 * @returns {Window}
 */
function rotated(turn, window) {
  return turn.map((row) => window[0].map((_, step) => row.reduce((sum, share, axis) => sum + share * window[axis][step], 0)));
}
