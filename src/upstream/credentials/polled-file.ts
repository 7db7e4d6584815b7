import { stat } from "node:fs/promises";
import { readTextFile } from "../../config/files/files.ts";
import { findSecretFlaw } from "../../config/files/secret-file.ts";

/**
 * A small file that another process replaces occasionally. It is checked when it is used: a rename
 * detaches a watcher, and mounted secrets are replaced by renames. An invalid or missing file does not
 * replace the last valid value.
 */
export class PolledFile<T> {
  readonly #path: string;
  readonly #maxBytes: number;
  readonly #parse: (text: string, isExposed: boolean) => T | undefined;
  #fingerprint: string | undefined;
  #text: string | undefined;
  #value: T | undefined;
  #reading: Promise<void> | undefined;

  /** @param parse returns undefined to reject the text; `isExposed`: every user may read or change the file */
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
   * Returns the last valid value, the same object while the text is the same; undefined if there has
   * been none.
   *
   * @param isForced reads the file even if its size and times did not change
   */
  async read(isForced = false): Promise<T | undefined> {
    if (isForced) {
      await this.#reading;
      this.#fingerprint = undefined;
    }
    this.#reading ??= this.#refresh().finally(() => {
      this.#reading = undefined;
    });
    await this.#reading;
    return this.#value;
  }

  async #refresh(): Promise<void> {
    const found = await this.#readFingerprint();
    if (found === undefined || found === this.#fingerprint) return;
    const file = await readTextFile(this.#path, this.#maxBytes);
    this.#fingerprint = found;
    if (!file.isRead || file.text === this.#text) return;
    const isExposed = findSecretFlaw(file, this.#path) !== undefined;
    const value = this.#parse(file.text, isExposed);
    if (value === undefined) return;
    this.#text = file.text;
    this.#value = value;
  }

  async #readFingerprint(): Promise<string | undefined> {
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
