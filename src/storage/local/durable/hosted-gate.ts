import { setTimeout as delay } from "node:timers/promises";
import { IndexRestoringError } from "../../metadata-index.ts";

/** How long a request waits for the journal's lines to be replayed. */
const PATIENCE_MS = 15_000;

/**
 * Lets requests for hosted repositories wait until the index has everything that the journal has: a
 * hosted tag is never answered as absent, or with an older digest, before that.
 */
export class HostedGate {
  readonly #patienceMs: number;
  #registries = new Set<string>();
  #known = Promise.withResolvers<void>();
  #ended = Promise.withResolvers<void>();
  #isKnown = true;
  #isOn = false;

  constructor(patienceMs = PATIENCE_MS) {
    this.#patienceMs = patienceMs;
  }

  get isOn(): boolean {
    return this.#isOn;
  }

  /** Whether hosted content may be missing in the index. */
  get mayRestore(): boolean {
    return this.#isOn && (!this.#isKnown || this.#registries.size > 0);
  }

  /**
   * Starts the wait.
   *
   * @param registries hosted registries in the index
   * @param isKnown whether the journal can't name others
   */
  begin(registries: Iterable<string>, isKnown: boolean): void {
    if (!this.#isOn) {
      this.#isOn = true;
      this.#registries = new Set();
      this.#known = Promise.withResolvers();
      this.#ended = Promise.withResolvers();
    }
    this.#isKnown = isKnown;
    for (const registry of registries) this.#registries.add(registry);
    if (isKnown) this.#known.resolve();
  }

  /** Sets the hosted registries that the journal names. */
  expect(registries: Iterable<string>): void {
    for (const registry of registries) this.#registries.add(registry);
    this.#isKnown = true;
    this.#known.resolve();
  }

  /** Ends all waits: the index has every hosted name of the journal. */
  end(): void {
    this.#isOn = false;
    this.#isKnown = true;
    this.#known.resolve();
    this.#ended.resolve();
  }

  /**
   * Waits if the registry is hosted.
   *
   * @param isFound whether the index has what is requested. A mirrored registry then does not wait
   *   for the journal to be read
   * @returns whether it waited, so that the caller must read the index again
   * @throws IndexRestoringError
   */
  async pass(registry: string, isFound: boolean): Promise<boolean> {
    if (!this.#isOn) return false;
    if (this.#registries.has(registry)) {
      await this.passHosted();
      return true;
    }
    if (isFound || this.#isKnown) return false;
    await this.#within(this.#known.promise);
    if (!this.#registries.has(registry)) return true;
    await this.passHosted();
    return true;
  }

  /** Waits for a request to a hosted repository. @throws IndexRestoringError */
  async passHosted(): Promise<void> {
    // The index may be replaced again while the request waits.
    while (this.#isOn) await this.#within(this.#ended.promise);
  }

  /** Waits if the index or the journal has hosted registries. @throws IndexRestoringError */
  async passAny(): Promise<void> {
    if (!this.#isOn) return;
    await this.#within(this.#known.promise);
    if (this.#registries.size > 0) await this.passHosted();
  }

  async #within(wait: Promise<void>): Promise<void> {
    const end = new AbortController();
    const isOver = await Promise.race([
      wait.then(() => false),
      delay(this.#patienceMs, true, { signal: end.signal, ref: false }),
    ]);
    end.abort();
    if (isOver) throw new IndexRestoringError();
  }
}
