import { RegistryError } from "../oci/errors.ts";

/** A longer queue would only be answered long after everybody has gone. */
const MAX_WAITING = 1_000;

/** So long a download may wait for its turn: what is left of the 18 s is the upstream's. */
const MAX_WAIT_MS = 8_000;

/** How often it is looked for a download that nobody reads any more, while others wait. */
const LOOK_EVERY_MS = 250;

const RETRY_AFTER_MS = 2_000;

/** How many downloads into the cache run at once, whatever their upstream. */
export class FillSlots {
  readonly #limit: () => number;
  readonly #makeRoom: () => void;
  readonly #waiting = new Set<() => void>();
  #held = 0;

  /**
   * @param limit may change at any time
   * @param makeRoom ends a download that nobody reads, if there is one
   */
  constructor(limit: () => number, makeRoom: () => void) {
    this.#limit = limit;
    this.#makeRoom = makeRoom;
  }

  /**
   * @returns the slot's end, to be called once
   * @throws RegistryError UNAVAILABLE, 503 with `Retry-After`, where too many wait or for too long
   */
  async acquire(): Promise<() => void> {
    if (this.#held < this.#limit() && this.#waiting.size === 0) {
      this.#held += 1;
      return this.#release;
    }
    if (this.#waiting.size >= MAX_WAITING) throw tooMany();
    const { promise, resolve, reject } = Promise.withResolvers<() => void>();
    const go = (): void => {
      clearTimeout(timer);
      clearInterval(look);
      resolve(this.#release);
    };
    const timer = setTimeout(() => {
      clearInterval(look);
      this.#waiting.delete(go);
      reject(tooMany());
    }, MAX_WAIT_MS);
    const look = setInterval(() => {
      this.#admit();
      this.#makeRoom();
    }, LOOK_EVERY_MS);
    this.#waiting.add(go);
    this.#makeRoom();
    return promise;
  }

  readonly #release = (): void => {
    this.#held -= 1;
    this.#admit();
  };

  #admit(): void {
    for (const next of this.#waiting) {
      if (this.#held >= this.#limit()) return;
      this.#held += 1;
      this.#waiting.delete(next);
      next();
    }
  }
}

function tooMany(): RegistryError {
  return new RegistryError("UNAVAILABLE", {
    status: 503,
    detail: "too many downloads run already",
    retryAfterMs: RETRY_AFTER_MS,
  });
}
