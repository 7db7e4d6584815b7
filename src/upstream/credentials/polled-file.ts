import { stat } from "node:fs/promises";
import { readTextFile } from "../../config/files/files.ts";
import { findSecretFlaw } from "../../config/files/secret-file.ts";

/**
 * A small file that somebody else replaces now and then. It is looked at when it is needed: a
 * watcher would be lost by each rename, and secrets are mounted by renames. What is faulty or
 * gone does not replace what was good.
 */
export class PolledFile<T> {
  readonly #path: string;
  readonly #maxBytes: number;
  readonly #parse: (text: string, isExposed: boolean) => T | undefined;
  #seen: string | undefined;
  #text: string | undefined;
  #value: T | undefined;
  #reading: Promise<void> | undefined;

  /** @param parse undefined refuses the text; `isExposed`: everybody on the machine may read or change it */
  constructor(
    path: string,
    maxBytes: number,
    parse: (text: string, isExposed: boolean) => T | undefined,
  ) {
    this.#path = path;
    this.#maxBytes = maxBytes;
    this.#parse = parse;
  }

  /**
   * The same value while the text is the same; undefined where there was never a good one.
   *
   * @param isForced read, whatever size and times say
   */
  async read(isForced = false): Promise<T | undefined> {
    if (isForced) {
      await this.#reading;
      this.#seen = undefined;
    }
    this.#reading ??= this.#refresh().finally(() => {
      this.#reading = undefined;
    });
    await this.#reading;
    return this.#value;
  }

  async #refresh(): Promise<void> {
    const found = await this.#look();
    if (found === undefined || found === this.#seen) return;
    const file = await readTextFile(this.#path, this.#maxBytes);
    this.#seen = found;
    if (!file.isRead || file.text === this.#text) return;
    const isExposed = findSecretFlaw(file, this.#path) !== undefined;
    const value = this.#parse(file.text, isExposed);
    if (value === undefined) return;
    this.#text = file.text;
    this.#value = value;
  }

  async #look(): Promise<string | undefined> {
    try {
      const { ino, size, mtimeNs, ctimeNs } = await stat(this.#path, {
        bigint: true,
      });
      return [ino, size, mtimeNs, ctimeNs].join(" ");
    } catch {
      return undefined;
    }
  }
}
