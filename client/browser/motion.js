/** The sensors of the device that this page is open on, by the browser's DeviceMotion events. */

import { DataError } from "./errors.js";

const SILENT_MS = 3000;
const RADIANS = Math.PI / 180;
/**
 * Apple's browsers give accelerationIncludingGravity the other way round than the specification and Android: -9.8 on z where the device
 * lies on its back. Source: https://github.com/dorukeker/gyronorm.js/issues/54. Not tried on an iPhone by us.
 */
const GRAVITY_SIGN = navigator.vendor.startsWith("Apple") ? -1 : 1;

/** @typedef {{stream: string, unit: string, timeNs: bigint, sample: [number, number, number]}} Measured  On the event's clock; x, y, z. */

/**
 * Return what an event measured, in SI units; a sensor that the device lacks is not there.
 *
 * The axes of rotationRate are x, y, z for alpha, beta, gamma: https://github.com/w3c/deviceorientation/pull/43.
 *
 * @param {DeviceMotionEvent} event
 * @returns {Measured[]}
 */
export function measuredIn(event) {
  const timeNs = BigInt(Math.round(event.timeStamp * 1e6)); // of ms
  const { accelerationIncludingGravity: acceleration, rotationRate: rotation } = event;
  const accelerometer = [acceleration?.x, acceleration?.y, acceleration?.z].map((value) => (value ?? NaN) * GRAVITY_SIGN);
  const gyroscope = [rotation?.alpha, rotation?.beta, rotation?.gamma].map((value) => (value ?? NaN) * RADIANS);
  /** @type {Measured[]} */
  const both = [
    { stream: "accelerometer", unit: "m/s^2", timeNs, sample: /** @type {[number, number, number]} */ (accelerometer) },
    { stream: "gyroscope", unit: "rad/s", timeNs, sample: /** @type {[number, number, number]} */ (gyroscope) },
  ];
  return both.filter(({ sample }) => sample.some(Number.isFinite));
}

/**
 * Ask for the sensors, which a browser may only allow after a tap, and listen until the returned function is called.
 *
 * @param {(measured: Measured[]) => void} take  called with each event's samples
 * @param {(problem: DataError) => void} complain  called where no sensor says anything for three seconds
 * @returns {Promise<() => void>}
 * @throws {DataError} the browser has none, or they are not allowed.
 */
export async function listenToMotion(take, complain) {
  const kind = /** @type {any} */ (globalThis.DeviceMotionEvent);
  if (kind === undefined) throw new DataError("this browser has no motion sensors: open the page on a phone, or give a recording");
  if (typeof kind.requestPermission === "function" && (await kind.requestPermission()) !== "granted") {
    throw new DataError("the motion sensors are not allowed: allow them for this page in the browser's settings, then tap again");
  }
  const silence = setTimeout(() => {
    complain(
      new DataError(`no sample in ${SILENT_MS / 1000} s: this device seems to have no motion sensors: take a phone, or a recording`),
    );
  }, SILENT_MS);
  const listener = (/** @type {DeviceMotionEvent} */ event) => {
    const measured = measuredIn(event);
    if (!measured.length) return; // a desktop sends one empty event
    clearTimeout(silence);
    take(measured);
  };
  addEventListener("devicemotion", listener);
  return () => {
    clearTimeout(silence);
    removeEventListener("devicemotion", listener);
  };
}
