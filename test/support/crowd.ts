import { createHash } from "node:crypto";
import type { ImageSummary } from "../../src/images/images.ts";
import type { ChildMirror } from "./child-mirror.ts";
import type { TestBlob } from "./image-builder.ts";
import { type RawRequest, type RawResponse, rawRequest } from "./raw-client.ts";
import type { MovingTag, Storm } from "./storm.ts";

/** Statuses that a client may receive whatever the upstream does; 500 would be a fault of the mirror. */
const STATUSES = new Set([
  200, 206, 304, 400, 404, 405, 416, 429, 502, 503, 504,
]);
/**
 * Headers come within 18 s, then bytes or an end. What hangs hangs for ever: so a machine that is
 * busy with much else is given its time.
 */
const PATIENCE_MS = 180_000;

/** Clients of every kind; each of their answers is checked. */
export class Crowd {
  /** Faults found in answers. */
  readonly faults: string[] = [];
  /** Counts of the acts, and of the statuses received. */
  readonly done = new Map<string, number>();
  readonly #mirror: ChildMirror;
  readonly #storm: Storm;
  readonly #random: () => number;

  constructor(mirror: ChildMirror, storm: Storm, random: () => number) {
    this.#mirror = mirror;
    this.#storm = storm;
    this.#random = random;
  }

  /** Performs one act of a client; resolves at its last answer. */
  async act(): Promise<void> {
    const tag = this.#storm.pick(this.#storm.tags);
    const blob = this.#storm.pick(tag.image.blobs);
    const path = `/v2/${tag.repository}/blobs/${blob.digest}`;
    const [name, act] = this.#choose([
      [45, "pull", () => this.#pull(tag)],
      [8, "leave", () => this.#leave(path, blob)],
      [6, "read slowly", () => this.#readSlowly(path, blob)],
      [8, "ask for a range", () => this.#askRange(path, blob)],
      [6, "request unknown content", () => this.#askUnknown()],
      [5, "talk nonsense", () => this.#talkNonsense()],
      [4, "HEAD", () => this.#ask(path, { method: "HEAD" })],
      [5, "list", () => this.#list(tag)],
      [6, "operate", () => this.#operateAtRandom(tag)],
    ]);
    this.#count(name);
    await act();
  }

  /**
   * Pulls a tag like an engine: blobs in parallel, each retried once if it breaks off.
   *
   * @returns whether everything was received
   */
  async #pull({ repository, tag }: MovingTag): Promise<boolean> {
    const answer = await this.#ask(`/v2/${repository}/manifests/${tag}`, {
      body: "keep",
    });
    if (answer.status !== 200 || answer.end !== "complete") return false;
    const digest = answer.headers["docker-content-digest"];
    if (answer.sha256 !== digest) this.#fault("a manifest is not its digest");
    const results = await Promise.all(
      blobsOf(answer.body).map(async (blob) => {
        const path = `/v2/${repository}/blobs/${blob}`;
        const first = await this.#askBlob(path, blob);
        return first || this.#askBlob(path, blob);
      }),
    );
    const isWhole = results.every(Boolean);
    this.#count(isWhole ? "whole pulls" : "broken pulls");
    return isWhole;
  }

  /** @returns the fault of an answer; undefined if it is complete and correct */
  async pullOffline({
    ref,
    digest,
  }: Pick<ImageSummary, "ref" | "digest">): Promise<string | undefined> {
    const [, repository, separator, reference] =
      /^[^/]+\/(.+?)([:@])([^/]+)$/.exec(ref) ?? [];
    if (repository === undefined || separator === undefined) return ref;
    const answer = await this.#ask(`/v2/${repository}/manifests/${reference}`, {
      body: "keep",
    });
    if (answer.status !== 200) return `${ref}: ${answer.status}`;
    if (answer.sha256 !== digest) return `${ref} is ${answer.sha256}`;
    for (const blob of blobsOf(answer.body)) {
      if (!(await this.#askBlob(`/v2/${repository}/blobs/${blob}`, blob))) {
        return `${ref}: ${blob}`;
      }
    }
    return undefined;
  }

  /** Sends a request to the operator API over its own connection. */
  async operate(
    method: string,
    path: string,
    body?: unknown,
  ): Promise<RawResponse> {
    const address = new URL(this.#mirror.operatorOrigin);
    const text = body === undefined ? "" : JSON.stringify(body);
    return rawRequest({
      port: Number(address.port),
      path,
      method,
      timeoutMs: PATIENCE_MS,
      raw: [
        `${method} ${path} HTTP/1.1`,
        `Host: ${address.host}`,
        "Connection: close",
        ...(text === "" ? [] : ["Content-Type: application/json"]),
        `Content-Length: ${text.length}`,
        "",
        text,
      ].join("\r\n"),
    });
  }

  // --- what clients do ---------------------------------------------------------------------------

  async #askBlob(path: string, digest: string): Promise<boolean> {
    const answer = await this.#ask(path);
    const isWhole = answer.status === 200 && answer.end === "complete";
    if (isWhole && answer.sha256 !== digest) {
      this.#fault(`${path} came whole and is ${answer.sha256}`);
    }
    return isWhole;
  }

  async #leave(path: string, { sizeBytes }: TestBlob): Promise<void> {
    await this.#ask(path, {
      leave: {
        atByte: Math.floor(this.#random() * sizeBytes),
        by: this.#random() < 0.5 ? "fin" : "rst",
      },
    });
  }

  async #readSlowly(path: string, { sizeBytes, digest }: TestBlob) {
    const answer = await this.#ask(path, {
      bytesPerSecond: Math.max(1_000, sizeBytes),
    });
    if (answer.status === 200 && answer.end === "complete") {
      if (answer.sha256 !== digest)
        this.#fault(`${path} is wrong, read slowly`);
    }
  }

  async #askRange(path: string, blob: TestBlob): Promise<void> {
    const from = Math.floor(this.#random() * blob.sizeBytes);
    const to = from + Math.floor(this.#random() * (blob.sizeBytes - from));
    const answer = await this.#ask(path, {
      headers: { Range: `bytes=${from}-${to}` },
    });
    if (answer.status !== 206 || answer.end !== "complete") return;
    const want = createHash("sha256")
      .update(blob.read(from, to + 1 - from))
      .digest("hex");
    if (answer.sha256 === `sha256:${want}`) return;
    // Of a download that is not verified yet a range is what the upstream sends: an engine hashes
    // the whole. What is stored was verified.
    const isStored = /; *hit/.test(answer.headers["cache-status"] ?? "");
    if (isStored || !this.#storm.hasLiedOf(blob.digest)) {
      this.#fault(`${path}: ${from}-${to} is wrong`);
    }
  }

  async #askUnknown(): Promise<void> {
    const name = Math.floor(this.#random() * 2 ** 32).toString(36);
    await this.#ask(`/v2/none/${name}/manifests/latest`);
  }

  async #talkNonsense(): Promise<void> {
    const raw = this.#storm.pick([
      "GET /v2/%2e%2e/%00/manifests/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
      "GET /v2/library/app/blobs/sha256:0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
      "PUT /v2/library/app/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n{",
      "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Half: ",
      "\x16\x03\x01\x02\x00\x01\x00\x01",
      "GET / HTTP/9.9\r\n\r\n",
      "",
    ]);
    // Most of these clients disconnect before their request is complete.
    await rawRequest({
      port: this.#mirror.port,
      path: "",
      raw,
      timeoutMs: 300,
    });
  }

  async #list({ repository, image }: MovingTag): Promise<void> {
    const { digest } = image.manifest;
    await this.#ask(
      this.#storm.pick([
        `/v2/${repository}/tags/list?n=5`,
        `/v2/${repository}/referrers/${digest}`,
        "/v2/_catalog",
        "/v2/",
      ]),
    );
  }

  async #operateAtRandom({ repository, tag }: MovingTag): Promise<void> {
    const ref = `/api/v1/images/docker.io/${repository}:${tag}`;
    const [method, path, body] = this.#storm.pick<
      readonly [string, string, unknown?]
    >([
      ["GET", "/metrics"],
      ["GET", "/readyz"],
      ["GET", "/api/v1/status"],
      ["GET", "/api/v1/images?n=1000"],
      ["GET", ref],
      ["PUT", `${ref}/pin`],
      ["DELETE", `${ref}/pin`],
      ["DELETE", `${ref}/pin`],
      ["DELETE", ref],
      ["POST", `${ref}/refresh`],
      ["POST", "/api/v1/evict", { toBytes: 10_000_000 }],
    ]);
    const { status, end } = await this.operate(method, path, body);
    if (end === "timeout" || status === 500) {
      this.#fault(`${method} ${path}: ${status} ${end}`);
    }
  }

  /** Sends a GET whose answer must be an expected one. */
  async #ask(
    path: string,
    options: Partial<RawRequest> = {},
  ): Promise<RawResponse> {
    const answer = await rawRequest({
      port: this.#mirror.port,
      path,
      body: "hash",
      timeoutMs: PATIENCE_MS,
      ...options,
    });
    const { status, end } = answer;
    this.#count(String(status));
    if (end === "timeout" || end === "rst" || !STATUSES.has(status)) {
      this.#fault(`${path}: ${status}, ended by ${end}`);
    }
    return answer;
  }

  #fault(text: string): void {
    this.faults.push(text);
  }

  #count(name: string): void {
    this.done.set(name, (this.done.get(name) ?? 0) + 1);
  }

  #choose(
    acts: readonly (readonly [number, string, () => Promise<unknown>])[],
  ): readonly [string, () => Promise<unknown>] {
    const sum = acts.reduce((total, [weight]) => total + weight, 0);
    let at = this.#random() * sum;
    for (const [weight, name, act] of acts) {
      at -= weight;
      if (at < 0) return [name, act];
    }
    throw new Error("no act");
  }
}

/** Digests that an image's manifest names, each once. */
function blobsOf(manifest: Buffer): readonly string[] {
  const { config, layers = [] } = JSON.parse(manifest.toString()) as {
    readonly config?: { readonly digest: string };
    readonly layers?: readonly { readonly digest: string }[];
  };
  return [
    ...new Set(
      [config, ...layers].flatMap((blob) => (blob ? [blob.digest] : [])),
    ),
  ];
}
