import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";

export type AuditRecord = Readonly<Record<string, unknown>>;

const ATTEMPTS = 1_200;
const ATTEMPT_MS = 25;

/** The file of `audit.file`; records are written after the events. */
export class AuditFile {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** Returns an empty text if the file does not exist. */
  text(): Promise<string> {
    return readFile(this.path, "utf8").catch(() => "");
  }

  /** In order. */
  async records(): Promise<AuditRecord[]> {
    const lines = (await this.text()).split("\n").slice(0, -1);
    return lines.map((line) => JSON.parse(line) as AuditRecord);
  }

  /** Waits for the first matching record. @throws Error if there is none within 30 s */
  async find(isWanted: (record: AuditRecord) => boolean): Promise<AuditRecord> {
    for (let left = ATTEMPTS; left > 0; left--) {
      const found = (await this.records()).find(isWanted);
      if (found !== undefined) return found;
      await delay(ATTEMPT_MS);
    }
    throw new Error(`no such record in:\n${await this.text()}`);
  }
}
