import { RegistryError } from "../oci/errors.ts";

/** A longer queue would only be answered long after everybody has gone. */
const MAX_WAITING = 1_000;

/** So long a download may wait for its turn: what is left of the 18 s is the upstream's. */
const MAX_WAIT_MS = 8_000;

/** How often it is looked for a download that nobody reads any more, while others wait. */
const LOOK_EVERY_MS = 250;

const RETRY_AFTER_MS = 2_000;

interface Waiting {
  go(): void;
  leave(): void;
}

/** How many downloads into the cache run at once, whatever their upstream. */
export class FillSlots {
  readonly #limit: () => number;
  readonly #makeRoom: () => void;
  readonly #waiting = new Set<Waiting>();
  #held = 0;
  #isClosed = false;

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
   * @throws RegistryError UNAVAILABLE, 503 with `Retry-After`, where too many wait, for too long,
   *   or until it closes
   */
  async acquire(): Promise<() => void> {
    if (this.#isClosed) throw unavailable("the mirror is stopping");
    if (this.#held < this.#limit() && this.#waiting.size === 0) {
      this.#held += 1;
      return this.#release;
    }
    if (this.#waiting.size >= MAX_WAITING) throw tooMany();
    const { promise, resolve, reject } = Promise.withResolvers<() => void>();
    const end = (): void => {
      clearTimeout(timer);
      clearInterval(look);
      this.#waiting.delete(waiting);
    };
    const waiting: Waiting = {
      go: () => {
        end();
        resolve(this.#release);
      },
      leave: () => {
        end();
        reject(unavailable("the mirror is stopping"));
      },
    };
    const timer = setTimeout(() => {
      end();
      reject(tooMany());
    }, MAX_WAIT_MS);
    const look = setInterval(() => {
      this.#admit();
      this.#makeRoom();
    }, LOOK_EVERY_MS);
    this.#waiting.add(waiting);
    this.#makeRoom();
    return promise;
  }

  /** Whoever waits, or comes later, is refused; slots that are held stay so until their end. */
  close(): void {
    this.#isClosed = true;
    for (const waiting of this.#waiting) waiting.leave();
  }

  readonly #release = (): void => {
    this.#held -= 1;
    this.#admit();
  };

  #admit(): void {
    for (const next of this.#waiting) {
      if (this.#held >= this.#limit()) return;
      this.#held += 1;
      next.go();
    }
  }
}

function tooMany(): RegistryError {
  return unavailable("too many downloads run already");
}

function unavailable(detail: string): RegistryError {
  return new RegistryError("UNAVAILABLE", {
    status: 503,
    detail,
    retryAfterMs: RETRY_AFTER_MS,
  });
}
