import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { DrainOrder, DrainReport } from "./drain-worker.ts";

export type { DrainReport } from "./drain-worker.ts";

/** The reading process. It is started once, so that its start is not part of a figure. */
export class Drain {
  readonly #child: ChildProcess;

  constructor() {
    this.#child = fork(join(import.meta.dirname, "drain-worker.ts"), {
      execArgv: [],
      // JSON has no Infinity.
      serialization: "advanced",
    });
  }

  /** @throws Error for any response other than a complete 200 */
  async read(
    server: { readonly host: string; readonly port: number },
    order: Omit<DrainOrder, "host" | "port">,
  ): Promise<DrainReport> {
    const { host, port } = server;
    this.#child.send({ host, port, ...order } satisfies DrainOrder);
    const [report] = (await once(this.#child, "message")) as [DrainReport];
    if (report.failure !== undefined) {
      throw new Error(`${host}:${port}${order.paths[0]}: ${report.failure}`);
    }
    return report;
  }

  stop(): void {
    this.#child.kill("SIGKILL");
  }
}
