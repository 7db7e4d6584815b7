import type { Audit, AuditEvent } from "./audit.ts";

/** An audit whose stream may be exchanged while the mirror runs; records are never lost between two. */
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

  /** Whoever reads the old stream is told that it ends here. @param file of the new one */
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
