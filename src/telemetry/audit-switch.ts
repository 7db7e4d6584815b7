import type { Audit, AuditEvent } from "./audit.ts";

/** An audit whose stream can be replaced while the mirror runs, without losing records. */
export class AuditSwitch implements Audit {
  #stream: Audit;

  constructor(stream: Audit) {
    this.#stream = stream;
  }

  record(event: AuditEvent): void {
    this.#stream.record(event);
  }

  reopen(): void {
    this.#stream.reopen();
  }

  /** Replaces the stream; the old one ends with a record that names the new one. @param file of the new one */
  async replace(next: Audit, file: string | undefined): Promise<void> {
    const before = this.#stream;
    this.#stream = next;
    before.record({ event: "audit-moved", to: file ?? null });
    await before.close();
  }

  close(): Promise<void> {
    return this.#stream.close();
  }
}
