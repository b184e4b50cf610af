/** Recordings in CSV files as `docs/data.md` has them, a file a stream, given to a recogniser as if they were measured now. */

import { DataError } from "./errors.js";
import { NS } from "./stream_buffer.js";

const CHUNK_NS = NS / 4n; // within the recogniser's patience

/** @typedef {{stream: string, times: bigint[], samples: number[][]}} Stream  Times `[n]` in ns, samples `[n][channels]`. */

/**
 * Return the stream that a file holds, named after the file.
 *
 * @param {string} file  its name
 * @param {string} text  CSV: a column `t_ns` or `t_s`, and one a channel; an empty cell is NaN
 * @returns {Stream}
 * @throws {DataError} the columns or a row are something else.
 */
export function readStream(file, text) {
  const [header = "", ...rows] = text
    .replace(/^\uFEFF/, "")
    .trimEnd()
    .split(/\r?\n/);
  const columns = header.split(",").map((name) => name.trim());
  const clock = columns.findIndex((name) => name === "t_ns" || name === "t_s");
  if (clock < 0 || columns.length < 2) {
    throw new DataError(`${file}: expected columns 't_ns' or 't_s' and one a channel, found ${columns.join(", ")}`);
  }
  /** @type {Stream} */
  const stream = { stream: file.replace(/\.csv$/i, ""), times: [], samples: [] };
  for (const [row, line] of rows.entries()) {
    const cells = line.split(",").map((cell) => cell.trim());
    const sample = cells.filter((_, column) => column !== clock).map((cell) => (cell === "" || /^nan$/i.test(cell) ? NaN : Number(cell)));
    const isNumber = cells.every((cell) => cell === "" || /^nan$/i.test(cell) || Number.isFinite(Number(cell)));
    const isTime = columns[clock] === "t_ns" ? /^-?\d+$/.test(cells[clock]) : cells[clock] !== "" && Number.isFinite(Number(cells[clock]));
    if (cells.length !== columns.length || !isNumber || !isTime) {
      throw new DataError(`${file}: data row ${row + 1}: expected ${columns.length} numbers with a time, found '${line.slice(0, 60)}'`);
    }
    stream.times.push(columns[clock] === "t_ns" ? BigInt(cells[clock]) : BigInt(Math.round(Number(cells[clock]) * Number(NS))));
    stream.samples.push(sample);
  }
  if (!rows.length) throw new DataError(`${file}: expected at least one row below the column names, found none`);
  return stream;
}

/**
 * Give the streams of one recording in step, a quarter of a second of each at a time.
 *
 * @param {Stream[]} streams
 * @returns {Generator<Stream>}
 */
export function* inStep(streams) {
  const next = streams.map(() => 0);
  const isLeft = () => streams.flatMap(({ times }, i) => (next[i] < times.length ? [times[next[i]]] : []));
  for (let left = isLeft(); left.length; left = isLeft()) {
    const end = left.reduce((first, time) => (time < first ? time : first)) + CHUNK_NS;
    for (const [i, { stream, times, samples }] of streams.entries()) {
      const begin = next[i];
      while (next[i] < times.length && times[next[i]] < end) next[i] += 1;
      if (next[i] > begin) yield { stream, times: times.slice(begin, next[i]), samples: samples.slice(begin, next[i]) };
    }
  }
}
