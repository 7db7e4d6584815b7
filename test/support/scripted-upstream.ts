import { createHash } from "node:crypto";
import { type Clock, systemClock } from "../../src/telemetry/clock.ts";
import { type AfterTest, releaseAfter } from "./after-test.ts";
import { Counter } from "./barrier.ts";
import type { IssuedCertificate } from "./certificate-authority.ts";
import {
  errorAnswer,
  json,
  parseTarget,
  type RequestKind,
  type RequestTarget,
  ScriptedContent,
} from "./scripted-content.ts";
import {
  basicCredential,
  ScriptedTokens,
  type UpstreamAuth,
} from "./scripted-tokens.ts";
import { bufferSource } from "./seeded-bytes.ts";
import {
  type Answer,
  type AnswerSink,
  type Misbehaviour,
  writeAnswer,
} from "./wire-answer.ts";
import { WireListener } from "./wire-listener.ts";
import type { WireRequest } from "./wire-request.ts";

export interface ScriptedUpstreamOptions {
  readonly auth?: UpstreamAuth;
  readonly tls?: IssuedCertificate;
  /** Blobs answer with a redirect to a second port, signed in the query. */
  readonly redirectBlobs?: {
    readonly status?: 301 | 302 | 303 | 307 | 308;
    /** Address of the second port; default 127.0.0.1. */
    readonly host?: string;
  };
  /** False: the referrers API answers 404, and the fallback tag exists. */
  readonly referrersApi?: boolean;
  /** Maximum number of entries of one page of tags or referrers. */
  readonly pageSize?: number;
  /** `Link` as an absolute URL rather than a path. */
  readonly absoluteLinks?: boolean;
  /**
   * Origins that clients use for the listeners, as in `https://auth.docker.io`; a proxy of the test
   * routes them. Default: their own.
   */
  readonly names?: Partial<Readonly<Record<ListenerName, string>>>;
  /** Clock of the tokens' lifetimes. */
  readonly clock?: Clock;
}

export type ListenerName = "registry" | "token" | "cdn";

/** One received request and its answer. */
export interface RecordedRequest extends RequestTarget {
  readonly listener: ListenerName;
  readonly method: string;
  /** Request target as sent. */
  readonly target: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** Undefined until an answer is chosen. */
  status: number | undefined;
  /** Bytes of the answer's body that the kernel has accepted. */
  bodyBytesSent: number;
  /** Whether the answer was sent or broken off. */
  isEnded: boolean;
}

/** Selects requests; every given condition must match. */
export interface RequestMatch {
  readonly kind?: RequestKind;
  readonly method?: string;
  readonly repository?: string;
  /** Tag or digest. */
  readonly reference?: string;
  readonly listener?: ListenerName;
  readonly hasRange?: boolean;
  readonly status?: number;
  where?(request: RecordedRequest): boolean;
}

export interface RuleOptions {
  /** Number of requests that the rule applies to; default all. */
  readonly times?: number;
  /** Whether the rule also applies to requests whose credentials the registry rejects. */
  readonly beforeAuth?: boolean;
}

interface Rule {
  readonly match: RequestMatch;
  readonly fault: Misbehaviour | ((request: RecordedRequest) => Misbehaviour);
  readonly beforeAuth: boolean;
  timesLeft: number;
}

/**
 * A registry on real sockets that a test scripts, and that records its requests.
 *
 * ```ts
 * const upstream = await ScriptedUpstream.start(test);
 * upstream.content.addImage("library/alpine", image, "3.20");
 * const barrier = new Barrier();
 * upstream.when({ kind: "blob" }, { hold: { at: 1000, barrier } }, { times: 1 });
 * …
 * await upstream.arrived(1, { kind: "blob" });
 * barrier.release();
 * assert.equal(upstream.count({ kind: "blob", method: "GET" }), 1);
 * ```
 */
export class ScriptedUpstream {
  readonly content: ScriptedContent;
  readonly registry: WireListener;
  readonly tokenListener: WireListener | undefined;
  readonly cdn: WireListener | undefined;
  readonly tokens: ScriptedTokens | undefined;
  readonly #options: ScriptedUpstreamOptions;
  readonly #records: RecordedRequest[] = [];
  readonly #counter = new Counter();
  readonly #denied = new Set<string>();
  #rules: readonly Rule[] = [];
  #signatureGeneration = 0;

  private constructor(options: ScriptedUpstreamOptions) {
    this.#options = options;
    const { auth, redirectBlobs } = options;
    this.registry = this.#listener("registry");
    if (auth?.scheme === "bearer") {
      this.tokens = new ScriptedTokens(auth, options.clock ?? systemClock);
      if (auth.realm === "port") this.tokenListener = this.#listener("token");
      if (auth.realm === "host") {
        this.tokenListener = this.#listener("token", "127.0.0.2");
      }
    }
    if (redirectBlobs !== undefined) {
      this.cdn = this.#listener("cdn", redirectBlobs.host);
    }
    this.content = new ScriptedContent({
      ...(options.referrersApi === false ? { referrersApi: false } : {}),
      ...(options.pageSize === undefined ? {} : { pageSize: options.pageSize }),
      ...(options.absoluteLinks === true
        ? { linkOrigin: () => this.#nameOf("registry", this.registry) }
        : {}),
    });
  }

  /** Listens on ports chosen by the system; closed with the test. */
  static async start(
    test: AfterTest,
    options: ScriptedUpstreamOptions = {},
  ): Promise<ScriptedUpstream> {
    const upstream = new ScriptedUpstream(options);
    releaseAfter(test, () => upstream.close());
    for (const listener of upstream.#listeners()) await listener.start();
    return upstream;
  }

  /** `http://127.0.0.1:PORT`: an endpoint for the configuration. */
  get origin(): string {
    return this.registry.origin;
  }

  /** `127.0.0.1:PORT`. */
  get host(): string {
    return `${this.registry.host}:${this.registry.port}`;
  }

  /**
   * Adds a rule for the requests that match. Rules are tried in the order in which they were added;
   * a rule that was used `times` times is skipped, so a sequence is written in its order.
   */
  when(
    match: RequestMatch,
    fault: Misbehaviour | ((request: RecordedRequest) => Misbehaviour),
    options: RuleOptions = {},
  ): void {
    this.#rules = [
      ...this.#rules,
      {
        match,
        fault,
        beforeAuth: options.beforeAuth ?? false,
        timesLeft: options.times ?? Infinity,
      },
    ];
  }

  /** Removes all rules. */
  clearRules(): void {
    this.#rules = [];
  }

  /** From now on, valid tokens and users may not pull the repository: 401, or 403 with Basic. */
  deny(repository: string): void {
    this.#denied.add(repository);
  }

  /** Makes the redirects sent so far lead to a 403. */
  expireSignatures(): void {
    this.#signatureGeneration += 1;
  }

  requests(match: RequestMatch = {}): readonly RecordedRequest[] {
    return this.#records.filter((request) => isMatch(match, request));
  }

  count(match: RequestMatch = {}): number {
    return this.requests(match).length;
  }

  /** Sum of the bytes of bodies. */
  bytesSent(match: RequestMatch = {}): number {
    return this.requests(match).reduce(
      (sum, one) => sum + one.bodyBytesSent,
      0,
    );
  }

  /** Forgets the recorded requests, so that a test can count those of its next step. */
  forgetRequests(): void {
    this.#records.length = 0;
  }

  /** Resolves when `count` such requests have arrived. */
  arrived(count: number, match: RequestMatch = {}): Promise<void> {
    return this.#counter.until(
      () => this.count(match) >= count,
      () =>
        `${this.count(match)} of ${count} requests arrived: ${this.#describeRequests()}`,
    );
  }

  /** Resolves when `bytes` of the bodies of such requests are sent. */
  sent(bytes: number, match: RequestMatch = {}): Promise<void> {
    return this.#counter.until(
      () => this.bytesSent(match) >= bytes,
      () =>
        `${this.bytesSent(match)} of ${bytes} bytes sent: ${this.#describeRequests()}`,
    );
  }

  /** Resolves when `count` such requests have been answered or broken off; default: all that arrived. */
  ended(match: RequestMatch = {}, count?: number): Promise<void> {
    return this.#counter.until(
      () => {
        const requests = this.requests(match);
        const ended = requests.filter((request) => request.isEnded).length;
        return count === undefined ? ended === requests.length : ended >= count;
      },
      () => `still answering: ${this.#describeRequests()}`,
    );
  }

  /** Closes every connection and refuses new ones. */
  async stop(): Promise<void> {
    for (const listener of this.#listeners()) await listener.stop();
  }

  /** Listens again, on the same ports. */
  async restart(): Promise<void> {
    for (const listener of this.#listeners()) await listener.start();
  }

  /** Accepts connections without answering, or answers again; held connections are dropped. */
  blackHole(isOn = true): void {
    for (const listener of this.#listeners()) {
      listener.mode = isOn ? "black-hole" : "serve";
      listener.dropConnections();
    }
  }

  async close(): Promise<void> {
    await this.stop();
  }

  #listeners(): readonly WireListener[] {
    return [this.registry, this.tokenListener, this.cdn].filter(
      (listener) => listener !== undefined,
    );
  }

  #listener(name: ListenerName, host?: string): WireListener {
    const { tls } = this.#options;
    return new WireListener({
      ...(host === undefined ? {} : { host }),
      ...(tls === undefined ? {} : { tls }),
      answer: (request, connection) => this.#answer(name, request, connection),
    });
  }

  async #answer(
    listener: ListenerName,
    request: WireRequest,
    connection: Omit<AnswerSink, "onBodyBytes">,
  ): Promise<boolean> {
    const target = parseTarget(request.target);
    const record: RecordedRequest = {
      ...target,
      ...(target.path === this.tokens?.path ? { kind: "token" } : {}),
      listener,
      method: request.method,
      target: request.target,
      headers: request.headers,
      body: request.body,
      status: undefined,
      bodyBytesSent: 0,
      isEnded: false,
    };
    this.#records.push(record);
    const refusal = this.#refusal(record);
    const honest = refusal ?? this.#honest(record, request);
    const fault = this.#takeFault(record, refusal !== undefined);
    record.status = fault.status ?? honest.status;
    this.#counter.notify();
    const keepsAlive = await writeAnswer(
      {
        ...connection,
        onBodyBytes: (count) => {
          record.bodyBytesSent += count;
          this.#counter.notify();
        },
      },
      honest,
      fault,
      {
        method: request.method,
        closes: request.headers["connection"]?.toLowerCase() === "close",
      },
    );
    record.isEnded = true;
    this.#counter.notify();
    return keepsAlive;
  }

  #takeFault(record: RecordedRequest, isRefused: boolean): Misbehaviour {
    const rule = this.#rules.find(
      (one) =>
        one.timesLeft > 0 &&
        (one.beforeAuth || !isRefused) &&
        isMatch(one.match, record),
    );
    if (rule === undefined) return {};
    rule.timesLeft -= 1;
    return typeof rule.fault === "function" ? rule.fault(record) : rule.fault;
  }

  #honest(record: RecordedRequest, request: WireRequest): Answer {
    if (record.kind === "token" && this.tokens !== undefined) {
      const { status, body } = this.tokens.answer(request);
      return json(status, body);
    }
    const answer =
      record.kind === "cdn"
        ? this.#cdnAnswer(record)
        : this.content.answer(record, record.headers);
    if (record.kind === "blob" && this.cdn !== undefined) {
      return answer.status === 404 ? answer : this.#redirect(record, this.cdn);
    }
    return {
      ...answer,
      headers: {
        "docker-distribution-api-version": "registry/2.0",
        ...answer.headers,
      },
    };
  }

  #redirect(record: RecordedRequest, cdn: WireListener): Answer {
    const signature = this.#sign(record.reference ?? "");
    return {
      status: this.#options.redirectBlobs?.status ?? 307,
      headers: {
        location: `${this.#nameOf("cdn", cdn)}/cdn/${record.reference}?signature=${signature}`,
      },
      body: bufferSource(Buffer.alloc(0)),
    };
  }

  #cdnAnswer(record: RecordedRequest): Answer {
    // Like S3: https://github.com/open-policy-agent/opa/issues/6580
    if (record.headers["authorization"] !== undefined) {
      return errorAnswer(400, "ONE_AUTH_MECHANISM");
    }
    return record.query.get("signature") === this.#sign(record.reference ?? "")
      ? this.content.answer(record, record.headers)
      : errorAnswer(403, "SIGNATURE_EXPIRED");
  }

  #nameOf(name: ListenerName, listener: WireListener): string {
    return this.#options.names?.[name] ?? listener.origin;
  }

  #sign(digest: string): string {
    return createHash("sha256")
      .update(`${this.#signatureGeneration} ${digest}`)
      .digest("hex");
  }

  /** The 401 or 403 for a request without the right credentials. */
  #refusal(record: RecordedRequest): Answer | undefined {
    const { auth } = this.#options;
    if (record.kind === "token" || record.kind === "cdn") return undefined;
    const isDenied = this.#denied.has(record.repository ?? "");
    if (auth?.scheme === "basic") {
      const user = basicCredential(record.headers["authorization"]);
      if (user === undefined || auth.users[user.name] !== user.password) {
        return challenge('Basic realm="scripted"');
      }
      return isDenied ? errorAnswer(403, "DENIED") : undefined;
    }
    if (this.tokens === undefined) {
      return isDenied ? errorAnswer(403, "DENIED") : undefined;
    }
    const fault =
      this.tokens.fault(record.headers["authorization"], record.repository) ??
      (isDenied ? "insufficient_scope" : undefined);
    if (fault === undefined) return undefined;
    const realm =
      this.tokenListener === undefined
        ? this.#nameOf("registry", this.registry)
        : this.#nameOf("token", this.tokenListener);
    const parts = [
      `realm="${realm}${this.tokens.path}"`,
      `service="${this.tokens.service}"`,
      ...(record.repository === undefined
        ? []
        : [`scope="${this.tokens.scope(record.repository)}"`]),
      ...(fault === "" ? [] : [`error="${fault}"`]),
    ];
    return challenge(`Bearer ${parts.join(",")}`);
  }

  #describeRequests(): string {
    return this.#records
      .map(
        (one) =>
          `${one.method} ${one.target} ${one.status} ${one.bodyBytesSent}${one.isEnded ? "" : "…"}`,
      )
      .join("; ");
  }
}

function challenge(value: string): Answer {
  const answer = errorAnswer(401, "UNAUTHORIZED");
  return {
    ...answer,
    headers: { ...answer.headers, "www-authenticate": value },
  };
}

function isMatch(match: RequestMatch, request: RecordedRequest): boolean {
  return (
    (match.kind === undefined || match.kind === request.kind) &&
    (match.method === undefined || match.method === request.method) &&
    (match.repository === undefined ||
      match.repository === request.repository) &&
    (match.reference === undefined || match.reference === request.reference) &&
    (match.listener === undefined || match.listener === request.listener) &&
    (match.hasRange === undefined ||
      match.hasRange === (request.headers["range"] !== undefined)) &&
    (match.status === undefined || match.status === request.status) &&
    (match.where === undefined || match.where(request))
  );
}
