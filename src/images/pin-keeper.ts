import type { Mirror } from "../mirror/mirror.ts";
import { referenceText } from "../oci/reference.ts";
import type { BlobLinks } from "../storage/blob-index.ts";
import type { PinIndex, RootName } from "../storage/root-index.ts";
import { type Schedule, scheduleUnref } from "../telemetry/clock.ts";
import type { Logger } from "../telemetry/logger.ts";
import { createEnsureImage, type EnsureImage } from "./ensure-image.ts";

type KeeperIndex = Pick<BlobLinks, "getLinkedBlob"> &
  Pick<PinIndex, "listLostPins">;

const CHECK_EVERY_MS = 60_000;
/** Pins are set by hand, so there are few. */
const MAX_PINS = 10_000;
/** Pins that are tried in one check; the next check continues with those that follow. */
const PINS_PER_CHECK = 16;
/** After this time the next pin is fetched too, so that a slow image does not delay the others. */
const PIN_PATIENCE_MS = 600_000;

/** Fetches lost pinned images again before a client requests them. */
export class PinKeeper {
  readonly #index: KeeperIndex;
  readonly #ensureImage: EnsureImage;
  readonly #hasUpstream: (name: string) => boolean;
  readonly #log: Pick<Logger, "info" | "warn">;
  readonly #schedule: Schedule;
  /** Pins whose failure was logged. */
  readonly #failed = new Set<string>();
  readonly #stopping = new AbortController();
  #position = 0;
  #cancel: (() => void) | undefined;
  #checking: Promise<void> = Promise.resolve();
  readonly #restoring = new Set<Promise<void>>();

  constructor(options: {
    readonly mirror: Pick<Mirror, "getManifest" | "fetchBlob" | "settleServed">;
    readonly index: KeeperIndex;
    /** Whether the upstream is configured. */
    readonly hasUpstream: (name: string) => boolean;
    readonly log: Pick<Logger, "info" | "warn">;
    readonly schedule?: Schedule;
  }) {
    this.#index = options.index;
    this.#ensureImage = createEnsureImage(options);
    this.#hasUpstream = options.hasUpstream;
    this.#log = options.log;
    this.#schedule = options.schedule ?? scheduleUnref;
  }

  /** Checks now, and then once a minute. Called once the index knows what is stored. */
  start(): void {
    if (this.#stopping.signal.aborted) return;
    this.#checking = this.#check()
      .catch((error: unknown) => {
        this.#log.warn({ err: error }, "could not read the lost pins");
      })
      .then(() => {
        if (this.#stopping.signal.aborted) return;
        this.#cancel = this.#schedule(() => this.start(), CHECK_EVERY_MS);
      });
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#cancel?.();
    await this.#checking;
    await Promise.all(this.#restoring);
  }

  async #check(): Promise<void> {
    const pins = await this.#index.listLostPins(MAX_PINS);
    if (this.#position >= pins.length) this.#position = 0;
    const batch = pins.slice(this.#position, this.#position + PINS_PER_CHECK);
    this.#position += PINS_PER_CHECK;
    for (const pin of batch) {
      if (this.#stopping.signal.aborted) return;
      if (this.#hasUpstream(pin.key.upstream)) await this.#start(pin);
    }
  }

  /**
   * Resolves when the image is fetched, or after {@link PIN_PATIENCE_MS}. The image is fetched to its
   * end in any case: once its manifest is stored, the pin is no longer lost and is not tried again.
   */
  async #start(pin: RootName): Promise<void> {
    const restoring = this.#restore(pin).finally(() => {
      this.#restoring.delete(restoring);
    });
    this.#restoring.add(restoring);
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const cancel = this.#schedule(resolve, PIN_PATIENCE_MS);
    await Promise.race([restoring, late]);
    cancel();
  }

  async #restore(pin: RootName): Promise<void> {
    const { key, reference } = pin;
    const fields = { ...key, reference: referenceText(reference) };
    const name = Object.values(fields).join(" ");
    try {
      // Children of an index are fetched in the background, as after any pull of the index.
      const { signal } = this.#stopping;
      await this.#ensureImage(pin, { platforms: [], signal });
      this.#failed.delete(name);
      this.#log.info(fields, "fetched a lost pinned image again");
    } catch (error) {
      if (this.#stopping.signal.aborted || this.#failed.has(name)) return;
      this.#failed.add(name);
      this.#log.warn(
        { err: error, ...fields },
        "could not fetch a lost pinned image again",
      );
    }
  }
}
