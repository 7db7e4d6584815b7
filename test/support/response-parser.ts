const HEAD_END = Buffer.from("\r\n\r\n");

type Phase =
  | "head"
  | "body"
  | "chunk-size"
  | "chunk"
  | "chunk-end"
  | "trailer"
  | "complete";

/** Parses one HTTP/1.x response as its bytes arrive, without keeping the body. */
export class ResponseParser {
  status = 0;
  rawHeaders: (readonly [string, string])[] = [];
  surplusBytes = 0;
  readonly #method: string;
  readonly #onBody: (part: Buffer) => void;
  #phase: Phase = "head";
  #pending: Buffer = Buffer.alloc(0);
  /** Of the body or the chunk; Infinity where the end of the connection ends the body. */
  #leftBytes = 0;

  /** @param onBody is given parts that it must copy to keep */
  constructor(method: string, onBody: (part: Buffer) => void) {
    this.#method = method;
    this.#onBody = onBody;
  }

  get isComplete(): boolean {
    return this.#phase === "complete";
  }

  get isEofDelimited(): boolean {
    return this.#phase === "body" && this.#leftBytes === Infinity;
  }

  /** Names in lower case; several of one name joined by a comma. */
  headers(): Readonly<Record<string, string>> {
    const headers: Record<string, string> = {};
    for (const [name, value] of this.rawHeaders) {
      const key = name.toLowerCase();
      headers[key] =
        headers[key] === undefined ? value : `${headers[key]}, ${value}`;
    }
    return headers;
  }

  push(part: Buffer): void {
    let rest: Buffer | undefined = part;
    while (rest !== undefined && rest.length > 0) {
      if (this.#phase === "complete") {
        this.surplusBytes += rest.length;
        return;
      }
      rest = this.#isInBody() ? this.#takeBody(rest) : this.#takeText(rest);
    }
  }

  #isInBody(): boolean {
    return this.#phase === "body" || this.#phase === "chunk";
  }

  #takeBody(part: Buffer): Buffer {
    const taken = part.subarray(0, Math.min(this.#leftBytes, part.length));
    this.#leftBytes -= taken.length;
    this.#onBody(taken);
    if (this.#leftBytes === 0) {
      this.#phase = this.#phase === "chunk" ? "chunk-end" : "complete";
    }
    return part.subarray(taken.length);
  }

  /** Reads a part that ends with a mark; returns the bytes after it. */
  #takeText(part: Buffer): Buffer | undefined {
    const text = Buffer.concat([this.#pending, part]);
    const mark = this.#phase === "head" ? HEAD_END : HEAD_END.subarray(0, 2);
    const end = text.indexOf(mark);
    if (end < 0) {
      this.#pending = text;
      return undefined;
    }
    this.#pending = Buffer.alloc(0);
    this.#takeLine(text.toString("latin1", 0, end));
    return text.subarray(end + mark.length);
  }

  #takeLine(line: string): void {
    switch (this.#phase) {
      case "head":
        this.#takeHead(line);
        break;
      case "chunk-size":
        this.#leftBytes = Number.parseInt(line, 16);
        this.#phase = this.#leftBytes === 0 ? "trailer" : "chunk";
        break;
      case "chunk-end":
        this.#phase = "chunk-size";
        break;
      case "trailer":
        if (line === "") this.#phase = "complete";
        break;
      case "body":
      case "chunk":
      case "complete":
        throw new Error(`no line is expected in ${this.#phase}`);
    }
  }

  #takeHead(head: string): void {
    const [statusLine = "", ...lines] = head.split("\r\n");
    const status = Number(statusLine.split(" ")[1] ?? 0);
    // An interim response; the real one follows.
    if (status >= 100 && status < 200) return;
    this.status = status;
    this.rawHeaders = lines.map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon), line.slice(colon + 1).trim()] as const;
    });
    const headers = this.headers();
    const length = headers["content-length"];
    if (this.#method === "HEAD" || status === 204 || status === 304) {
      this.#phase = "complete";
    } else if (headers["transfer-encoding"]?.includes("chunked") === true) {
      this.#phase = "chunk-size";
    } else {
      this.#leftBytes = length === undefined ? Infinity : Number(length);
      this.#phase = this.#leftBytes === 0 ? "complete" : "body";
    }
  }
}
