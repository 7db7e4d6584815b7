import { setImmediate as nextTurn } from "node:timers/promises";
import { Agent, type Dispatcher, request } from "undici";
import { digestOf } from "../../src/oci/digest.ts";
import {
  buildImage,
  seededBlob,
  type TestBlob,
  type TestImage,
} from "./image-builder.ts";

export const CROWD_REPOSITORIES = ["team/a", "team/b", "corp/c", "d"] as const;

const BASE_LAYERS = 4;
const KIB = 1024;
const LAYER_BYTES = [1, 4 * KIB, 40 * KIB, 200 * KIB] as const;
const MAX_FAULTS = 20;
/** Longer than any answer takes on a machine that is busy with other work. */
const PATIENCE_MS = 60_000;

/** A tag that clients may pull. */
interface LiveTag {
  readonly repository: string;
  readonly tag: string;
  readonly image: TestImage;
  /** Clients that pull it now; it is not deleted meanwhile. */
  readers: number;
}

interface Answer {
  readonly status: number;
  readonly header: (name: string) => string;
  readonly body: Buffer;
}

interface RequestOptions {
  readonly body?: Buffer;
  readonly headers?: Readonly<Record<string, string>>;
}

/**
 * Clients that push, pull and delete images of hosted repositories at the same time. Images share
 * layers of a base, which is unneeded whenever the last of them is deleted; layers are mounted from one
 * repository to another; and no tag is deleted while it is pulled, so that every answer has one right
 * status.
 */
export class HostedCrowd {
  readonly faults: string[] = [];
  readonly pullsMs: number[] = [];
  readonly done = { push: 0, pull: 0, delete: 0, mount: 0 };
  readonly #origin: string;
  readonly #random: () => number;
  readonly #agent: Agent;
  readonly #live: LiveTag[] = [];
  readonly #base: readonly TestBlob[];
  readonly #maxLive: number;
  #images = 0;

  /** @param origin of the registry API, with the name of the hosted registry: `http://…/v2/local` */
  constructor(
    origin: string,
    { random, maxLive }: { random: () => number; maxLive: number },
  ) {
    this.#origin = origin;
    this.#random = random;
    this.#maxLive = maxLive;
    this.#agent = new Agent({ connections: 256, allowH2: false });
    this.#base = Array.from({ length: BASE_LAYERS }, (_, number) =>
      seededBlob(`base ${number}`, 64 * KIB),
    );
  }

  /** Pushes and deletes until the time is over. */
  async pushUntil(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      await this.#guard(() => this.#pushOne());
      if (this.#live.length > this.#maxLive)
        await this.#guard(() => this.#deleteOne());
    }
  }

  /** Pulls until the time is over. */
  async pullUntil(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      const live = this.#pick(this.#live);
      if (live === undefined) await nextTurn();
      else await this.#guard(() => this.#pull(live));
    }
  }

  /** Deletes everything that was pushed. */
  async deleteAll(): Promise<void> {
    while (this.#live.length > 0) await this.#deleteOne();
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  // --- acts ------------------------------------------------------------------------------------

  async #pushOne(): Promise<void> {
    const number = this.#images++;
    // A layer of another repository's image, which may be deleted meanwhile.
    const other = number % 3 === 0 ? this.#pick(this.#live) : undefined;
    const own = this.#pick(LAYER_BYTES) ?? 1;
    const layers = [
      ...this.#base.slice(number % BASE_LAYERS),
      ...(other?.image.layers.slice(-1) ?? []),
    ];
    const image = buildImage({
      seed: `image ${number}`,
      layers: [...layers, own],
    });
    const repository = this.#pick(CROWD_REPOSITORIES) ?? CROWD_REPOSITORIES[0];
    const live = { repository, tag: `t${number}`, image, readers: 0 };
    await this.#push(live, other?.repository);
    if (number % 8 === 0) {
      // The same image again, under another tag of the same repository.
      await this.#expect(201, "PUT", `${repository}/manifests/again${number}`, {
        body: image.manifest.bytes,
        headers: { "content-type": image.manifest.mediaType },
      });
    }
    this.#live.push(live);
  }

  async #push(
    { repository, tag, image }: LiveTag,
    from?: string,
  ): Promise<void> {
    await Promise.all(
      image.blobs.map((blob) => this.#pushBlob(repository, blob, from)),
    );
    const answer = await this.#expect(
      201,
      "PUT",
      `${repository}/manifests/${tag}`,
      {
        body: image.manifest.bytes,
        headers: { "content-type": image.manifest.mediaType },
      },
    );
    if (answer.header("docker-content-digest") !== image.manifest.digest)
      this.#fault(`${repository}:${tag} was stored under another digest`);
    this.done.push += 1;
  }

  /** As engines do: asks first, then mounts if it knows a source, then uploads in one or two requests. */
  async #pushBlob(
    repository: string,
    blob: TestBlob,
    from: string | undefined,
  ): Promise<void> {
    const head = await this.#ask("HEAD", `${repository}/blobs/${blob.digest}`);
    if (head.status === 200) return;
    if (head.status !== 404) this.#fault(`HEAD of a blob got ${head.status}`);
    const uploads = `${repository}/blobs/uploads/`;
    if (from !== undefined) {
      const query = `?mount=${blob.digest}&from=local/${from}`;
      const mounted = await this.#ask("POST", uploads + query);
      if (mounted.status === 201) {
        this.done.mount += 1;
        return;
      }
      if (mounted.status !== 202) this.#fault(`mount got ${mounted.status}`);
      await this.#sendTo(mounted.header("location"), blob);
      return;
    }
    const started = await this.#expect(202, "POST", uploads);
    await this.#sendTo(started.header("location"), blob);
  }

  async #sendTo(location: string, blob: TestBlob): Promise<void> {
    const origin = new URL(this.#origin).origin;
    const url = new URL(location, origin);
    const bytes = blob.bytes();
    const isChunked = this.#random() < 0.5;
    if (isChunked) {
      const patched = await this.#ask("PATCH", url, {
        body: bytes,
        headers: { "content-type": "application/octet-stream" },
      });
      if (patched.status !== 202) this.#fault(`PATCH got ${patched.status}`);
      url.href = new URL(patched.header("location"), origin).href;
    }
    url.searchParams.set("digest", blob.digest);
    const ended = await this.#ask("PUT", url, {
      ...(isChunked ? {} : { body: bytes }),
      headers: { "content-type": "application/octet-stream" },
    });
    if (ended.status !== 201)
      this.#fault(
        `PUT of an upload got ${ended.status} ${ended.body.toString()}`,
      );
  }

  async #pull(live: LiveTag): Promise<void> {
    const { repository, tag, image } = live;
    live.readers += 1;
    const startMs = performance.now();
    try {
      const manifest = await this.#expect(
        200,
        "GET",
        `${repository}/manifests/${tag}`,
      );
      if (!manifest.body.equals(image.manifest.bytes))
        this.#fault(`${repository}:${tag} has other bytes`);
      for (const blob of image.blobs) {
        const { body } = await this.#expect(
          200,
          "GET",
          `${repository}/blobs/${blob.digest}`,
        );
        if (digestOf(body) !== blob.digest)
          this.#fault(`${blob.digest} has other bytes`);
      }
      this.done.pull += 1;
      this.pullsMs.push(performance.now() - startMs);
    } finally {
      live.readers -= 1;
    }
  }

  async #deleteOne(): Promise<void> {
    const idle = this.#live.filter(({ readers }) => readers === 0);
    const live = this.#pick(idle);
    if (live === undefined) {
      await nextTurn();
      return;
    }
    this.#live.splice(this.#live.indexOf(live), 1);
    const path = `${live.repository}/manifests/`;
    const { digest } = live.image.manifest;
    if (this.#random() < 0.5)
      await this.#expect(202, "DELETE", path + live.tag);
    await this.#expect(202, "DELETE", path + digest);
    await this.#expect(404, "GET", path + digest);
    await this.#expect(404, "GET", path + live.tag);
    this.done.delete += 1;
  }

  // --- requests --------------------------------------------------------------------------------

  async #expect(
    status: number,
    method: Dispatcher.HttpMethod,
    path: string,
    options: RequestOptions = {},
  ): Promise<Answer> {
    const answer = await this.#ask(method, path, options);
    if (answer.status !== status) {
      this.#fault(
        `${method} ${path} got ${answer.status}; expected ${status}: ${answer.body.subarray(0, 300).toString()}`,
      );
    }
    return answer;
  }

  /** Sends one request. @param path below the registry, or a URL */
  async #ask(
    method: Dispatcher.HttpMethod,
    path: string | URL,
    options: RequestOptions = {},
  ): Promise<Answer> {
    const url = typeof path === "string" ? `${this.#origin}/${path}` : path;
    const { statusCode, headers, body } = await request(url, {
      method,
      ...options,
      dispatcher: this.#agent,
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const bytes = Buffer.from(await body.arrayBuffer());
    return {
      status: statusCode,
      header: (name) => String(headers[name] ?? ""),
      body: bytes,
    };
  }

  async #guard(act: () => Promise<void>): Promise<void> {
    try {
      await act();
    } catch (error) {
      this.#fault(String(error));
    }
  }

  #fault(text: string): void {
    if (this.faults.length < MAX_FAULTS) this.faults.push(text);
  }

  #pick<T>(from: readonly T[]): T | undefined {
    return from[Math.floor(this.#random() * from.length)];
  }
}
