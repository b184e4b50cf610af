/** Errors a user can act on, of the same names and words as `clmm_core/errors.py`, and the numbers in them. */

/** Samples that cannot be what they were given as. */
export class DataError extends Error {
  name = "DataError";
}

/** A model file that cannot be used. */
export class ModelFileError extends Error {
  name = "ModelFileError";
}

/**
 * Return a number with so many significant digits, as Python's `:.{digits}g` writes it, so that both recognisers use the same words.
 *
 * @param {number} value
 * @param {number} digits
 * @returns {string}
 */
export function general(value, digits) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  const [mantissa, power] = value.toExponential(digits - 1).split("e");
  const exponent = Number(power);
  const withoutZeros = (/** @type {string} */ text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (exponent >= -4 && exponent < digits) return withoutZeros(value.toFixed(digits - 1 - exponent));
  return `${withoutZeros(mantissa)}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}
