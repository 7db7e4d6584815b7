import type { Sender } from "../../../hosted/hosted.ts";
import type { Jobs } from "../../jobs/job.ts";
import type { ImportOptions, ImportReport } from "../bundle.ts";
import type { BundleSource, ImportBundle } from "./import-bundle.ts";

/** Imports of a running mirror: each is a job that ends with its request. */
export class TrackedImports {
  readonly #import: ImportBundle;
  readonly #jobs: Pick<Jobs, "track">;

  constructor(importBundle: ImportBundle, jobs: Pick<Jobs, "track">) {
    this.#import = importBundle;
    this.#jobs = jobs;
  }

  /**
   * Imports a bundle.
   *
   * @param sender the source of the order
   * @param signal ends the import when its client leaves
   * @throws RegistryError; the signal's reason
   */
  run(
    source: BundleSource,
    options: ImportOptions,
    sender: Sender & { readonly client: string },
    signal: AbortSignal,
  ): Promise<ImportReport> {
    return this.#jobs.track("import", signal, (run) =>
      this.#import(source, options, {
        signal: run.signal,
        report: (progress) => run.report(progress),
        sender,
      }),
    );
  }
}
