/** Work that waits: one piece begins when the one before has ended, so that answers come in the order of their samples. */
export class InTurn {
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();

  /**
   * Return what `work` gives; it begins when all work asked for before has ended, well or not.
   *
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  after(work) {
    const done = this.#last.then(work);
    this.#last = done.catch(() => {}); // whoever asked for it is told
    return done;
  }
}
