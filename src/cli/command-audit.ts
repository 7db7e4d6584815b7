import type { Writable } from "node:stream";
import {
  type Audit,
  type AuditEvent,
  NO_AUDIT,
  openAudit,
} from "../telemetry/audit.ts";

/** Records the changes that a command makes on the storage root of a stopped mirror. */
export class CommandAudit {
  readonly #file: string | undefined;
  readonly #stderr: Writable;
  #audit: Audit = NO_AUDIT;

  constructor(file: string | undefined, stderr: Writable) {
    this.#file = file;
    this.#stderr = stderr;
  }

  /** @throws the system's error if the audit file can't be opened */
  async open(): Promise<void> {
    if (this.#file === undefined || this.#audit !== NO_AUDIT) return;
    this.#audit = await openAudit(
      this.#file,
      (error) => {
        this.#stderr.write(`entrepot: audit.file: ${String(error)}\n`);
      },
      2,
    );
  }

  record(event: AuditEvent): void {
    this.#audit.record(event);
  }

  close(): Promise<void> {
    return this.#audit.close();
  }
}
