import { buildImage, seededBlob, type TestImage } from "./image-builder.ts";
import { type RecordedRequest, ScriptedUpstream } from "./scripted-upstream.ts";
import type { AfterTest } from "./after-test.ts";
import type { Misbehaviour } from "./wire-answer.ts";

/** A tag that is moved from image to image. */
export interface MovingTag {
  readonly repository: string;
  readonly tag: string;
  image: TestImage;
}

const REPOSITORIES = ["library/app", "library/base", "team/service", "team/x"];
const TAGS_EACH = 12;
const SHARED_LAYERS = 6;
const KIB = 1024;
const LAYER_BYTES = [0, 1, 4 * KIB, 70 * KIB, 300 * KIB, 900 * KIB] as const;
/** Size of a large layer: large enough to be resumed, and to be hashed in the background. */
const LARGE_BYTES = 3 * 1024 * KIB;

/** Share of responses with a fault during a storm. */
const SPOILT = 0.25;

/**
 * Several endpoints of one registry whose tags move. During a storm their responses have the faults
 * that were observed with registries, their redirect targets and proxies.
 */
export class Storm {
  readonly tags: readonly MovingTag[];
  /** Number of responses with each fault. */
  readonly dealt = new Map<string, number>();
  readonly #lies = new Set<string>();
  isOn = false;
  readonly #endpoints: readonly ScriptedUpstream[];
  readonly #random: () => number;
  #images = 0;

  private constructor(
    endpoints: readonly ScriptedUpstream[],
    random: () => number,
  ) {
    this.#endpoints = endpoints;
    this.#random = random;
    this.tags = REPOSITORIES.flatMap((repository) =>
      Array.from({ length: TAGS_EACH }, (_, at) => ({
        repository,
        tag: `v${at}`,
        image: this.#build(),
      })),
    );
    for (const tag of this.tags) this.#publish(tag);
    for (const endpoint of endpoints) {
      endpoint.when({}, (request) => this.#deal(request));
    }
  }

  static async start(
    test: AfterTest,
    endpoints: number,
    random: () => number,
  ): Promise<Storm> {
    return new Storm(
      await Promise.all(
        Array.from({ length: endpoints }, () => ScriptedUpstream.start(test)),
      ),
      random,
    );
  }

  get origins(): readonly string[] {
    return this.#endpoints.map(({ origin }) => origin);
  }

  /** Points the tag to a new image; the previous image remains available by its digest. */
  move(tag: MovingTag): void {
    tag.image = this.#build();
    this.#publish(tag);
  }

  /** Whether wrong bytes were ever sent for this digest. */
  hasLiedOf(digest: string): boolean {
    return this.#lies.has(digest);
  }

  /** Stops one endpoint, or lets it accept connections without a response. */
  async lose(): Promise<void> {
    const endpoint = this.pick(this.#endpoints);
    if (this.#random() < 0.5) await endpoint.stop();
    else endpoint.blackHole();
  }

  /** Ends the storm: restarts every endpoint without faults, and closes all their connections. */
  async calm(): Promise<void> {
    this.isOn = false;
    for (const endpoint of this.#endpoints) {
      endpoint.blackHole(false);
      await endpoint.stop();
      await endpoint.restart();
      endpoint.forgetRequests();
    }
  }

  /** Closes all connections, including idle ones that clients keep alive. */
  dropConnections(): void {
    for (const { registry } of this.#endpoints) registry.dropConnections();
  }

  pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.#random() * list.length)] as T;
  }

  #publish({ repository, tag, image }: MovingTag): void {
    for (const { content } of this.#endpoints) {
      content.addImage(repository, image, tag);
    }
  }

  #build(): TestImage {
    this.#images += 1;
    const shared = Math.floor(this.#random() * SHARED_LAYERS);
    const isLarge = this.#random() < 0.1;
    return buildImage({
      seed: `storm ${this.#images}`,
      layers: [
        seededBlob(`shared ${shared}`, LAYER_BYTES[shared] ?? 0),
        this.pick(LAYER_BYTES),
        isLarge ? LARGE_BYTES : this.pick(LAYER_BYTES),
      ],
    });
  }

  #deal(request: RecordedRequest): Misbehaviour {
    if (!this.isOn || this.#random() >= SPOILT) return {};
    const at = Math.floor(this.#random() * 200 * KIB);
    const by = this.#random() < 0.5 ? "fin" : "rst";
    const [name, fault] = this.pick<readonly [string, Misbehaviour]>([
      ["cut", { cut: { atByte: at, by } }],
      ["cut", { cut: { atByte: at, by }, framing: "chunked" }],
      ["cut", { cut: { atByte: at, by }, framing: "eof" }],
      ["cut at once", { cut: { atByte: 0, by } }],
      ["stall", { stallAt: at }],
      ["silence", { stallAt: "headers" }],
      ["slow", { bytesPerSecond: 400 * KIB }],
      ["wrong byte", { flip: "first" }],
      ["wrong byte", { flip: "middle" }],
      ["wrong byte", { flip: "last" }],
      ["too short", { shortenTo: at }],
      ["too long", { appendBytes: 1 + (at % 100) }],
      ["wrong length", { contentLength: at }],
      ["gzip", { gzip: true }],
      ["429", { status: 429, headers: { "retry-after": "1" }, body: "{}" }],
      ["500", { status: 500, body: "oops" }],
      ["503", { status: 503, headers: { "retry-after": "1" }, body: "" }],
      ["404", { status: 404, body: "{}" }],
      ["other digest", { headers: { "docker-content-digest": OTHER } }],
      ["no length", { framing: "chunked" }],
      ["garbage", { raw: "\0\xff garbage\r\n\r\n" }],
      ["half headers", { raw: "HTTP/1.1 200 OK\r\nContent-Le" }],
    ]);
    // A response to HEAD is a status line and headers only; count it separately.
    const key = `${name}${request.method === "HEAD" ? " to HEAD" : ""}`;
    this.dealt.set(key, (this.dealt.get(key) ?? 0) + 1);
    if (LIES.has(name)) this.#lies.add(lastPart(request.target));
    return fault;
  }
}

/** Faults that send wrong bytes in a body that looks complete. */
const LIES: ReadonlySet<string> = new Set(["wrong byte", "gzip"]);

function lastPart(requestTarget: string): string {
  const target = requestTarget.split("?", 1)[0] ?? "";
  return target.slice(target.lastIndexOf("/") + 1);
}

const OTHER = `sha256:${"0".repeat(64)}`;
