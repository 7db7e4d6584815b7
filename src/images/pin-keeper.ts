import type { MetadataIndex } from "../storage/metadata-index.ts";
import type { LostPin } from "../storage/root-index.ts";
import { parseManifest } from "../oci/manifest.ts";
import { referenceText } from "../oci/reference.ts";
import type { Logger } from "../telemetry/logger.ts";
import type { Mirror } from "../mirror/mirror.ts";
import { type Schedule, scheduleUnref } from "../telemetry/clock.ts";

const LOOK_EVERY_MS = 60_000;
/** Pins are set by hand: there are few. */
const MAX_PINS = 10_000;
/** Of those that can't be fetched a few are tried each time, in turn. */
const PINS_AT_ONCE = 16;

/** Fetches again what is pinned and was lost, before anybody asks for it. */
export class PinKeeper {
  readonly #mirror: Pick<Mirror, "getManifest" | "openBlob">;
  readonly #index: MetadataIndex;
  readonly #hasUpstream: (name: string) => boolean;
  readonly #log: Pick<Logger, "info" | "warn">;
  readonly #schedule: Schedule;
  /** Told once that they can't be fetched. */
  readonly #told = new Set<string>();
  #place = 0;
  #isStopped = false;
  #cancel: (() => void) | undefined;
  #looking: Promise<void> = Promise.resolve();

  constructor(options: {
    readonly mirror: Pick<Mirror, "getManifest" | "openBlob">;
    readonly index: MetadataIndex;
    /** Whether the upstream is configured. */
    readonly hasUpstream: (name: string) => boolean;
    readonly log: Pick<Logger, "info" | "warn">;
    readonly schedule?: Schedule;
  }) {
    this.#mirror = options.mirror;
    this.#index = options.index;
    this.#hasUpstream = options.hasUpstream;
    this.#log = options.log;
    this.#schedule = options.schedule ?? scheduleUnref;
  }

  /** Looks now, and then once a minute. Called once the index knows what is stored. */
  start(): void {
    if (this.#isStopped) return;
    this.#looking = this.#look()
      .catch((error: unknown) => {
        this.#log.warn({ err: error }, "lost pins could not be read");
      })
      .then(() => {
        if (this.#isStopped) return;
        this.#cancel = this.#schedule(() => this.start(), LOOK_EVERY_MS);
      });
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancel?.();
    await this.#looking;
  }

  async #look(): Promise<void> {
    const pins = await this.#index.listLostPins(MAX_PINS);
    if (this.#place >= pins.length) this.#place = 0;
    const some = pins.slice(this.#place, this.#place + PINS_AT_ONCE);
    this.#place += PINS_AT_ONCE;
    for (const pin of some) {
      if (this.#isStopped) return;
      if (this.#hasUpstream(pin.key.upstream)) await this.#fetch(pin);
    }
  }

  async #fetch(pin: LostPin): Promise<void> {
    const { key, reference } = pin;
    const fields = { ...key, reference: referenceText(reference) };
    const name = Object.values(fields).join(" ");
    try {
      const { bytes, mediaType } = await this.#mirror.getManifest(
        key,
        reference,
      );
      await this.#fillBlobs(pin, bytes, mediaType);
      this.#told.delete(name);
      this.#log.info(fields, "a pinned image that was lost is fetched again");
    } catch (error) {
      if (this.#told.has(name)) return;
      this.#told.add(name);
      this.#log.warn(
        { err: error, ...fields },
        "a pinned image that was lost can't be fetched again now",
      );
    }
  }

  /** What only the lost manifest named may have been evicted since. */
  async #fillBlobs(
    { key }: LostPin,
    bytes: Buffer,
    mediaType: string,
  ): Promise<void> {
    const parsed = parseManifest(bytes, mediaType);
    if (!parsed.ok) return;
    for (const { role, isForeign, digest } of parsed.children) {
      if (role !== "blob" || isForeign || this.#isStopped) continue;
      const row = await this.#index.getLinkedBlob(key, digest);
      if (row !== undefined) continue;
      const answer = await this.#mirror.openBlob(key, digest);
      // The fill goes on without a reader.
      if (answer.kind !== "unsatisfiable") answer.body.close();
    }
  }
}
