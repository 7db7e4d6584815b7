import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { describe, it } from "node:test";
import type { ReadHead } from "../../../../src/http/fast-path/read-head.ts";
import { WatchedConnection } from "../../../../src/http/fast-path/watched-connection.ts";

const HEAD = Buffer.from("GET / HTTP/1.1\r\nHost: m\r\n\r\n");
const READ = {} as ReadHead;

interface Parsed {
  readonly requests?: number;
  readonly isComplete?: boolean;
  readonly isKept?: boolean;
  /** Whether the answer is complete when the parser returns. */
  readonly isAnswered?: boolean;
  /** Which of the requests was answered from memory. */
  readonly recalled?: number;
}

/** A connection on a socket that accepts every byte, with a scripted parser. */
class Stand {
  readonly written: string[] = [];
  readonly remembered: string[] = [];
  readonly responses: EventEmitter[] = [];
  given = 0;
  /** Whether the answer to the next chunk is in memory. */
  isKnown = false;
  readonly socket = {
    writable: true,
    writableLength: 0,
    write: (text: string) => this.written.push(text),
  };
  readonly connection: WatchedConnection;
  #parsed: Parsed = {};

  constructor() {
    this.connection = new WatchedConnection({
      socket: this.socket as unknown as Socket,
      server: { listening: true },
      place: undefined,
      maxRequests: 100,
      passToNode: () => this.#parse(),
      find: () =>
        this.isKnown ? { text: "answer", report: () => {} } : undefined,
      remember: (chunk) => this.remembered.push(chunk.toString()),
    });
  }

  take(parsed: Parsed = {}, chunk: Buffer = HEAD): void {
    this.#parsed = parsed;
    this.connection.take(chunk);
  }

  #parse(): void {
    this.given += 1;
    const { requests = 1, isComplete = true, isKept = true } = this.#parsed;
    const { isAnswered = true, recalled = this.responses.length } =
      this.#parsed;
    for (let i = 0; i < requests; i++) {
      const response = Object.assign(new EventEmitter(), {
        shouldKeepAlive: isKept,
      });
      this.responses.push(response);
      const request = { complete: isComplete } as IncomingMessage;
      this.connection.begin(request, response as unknown as ServerResponse);
    }
    this.connection.noteRecalled(
      this.responses[recalled] as unknown as ServerResponse,
      READ,
    );
    if (!isAnswered) return;
    for (const response of this.responses.slice(
      this.responses.length - requests,
    )) {
      response.emit("close");
    }
  }
}

void describe("a watched connection", () => {
  void it("is answered after one whole request, and later heads are remembered", () => {
    const stand = new Stand();
    stand.take();
    assert.deepEqual(stand.remembered, []);
    stand.take();
    assert.deepEqual(stand.remembered, [HEAD.toString()]);
    stand.isKnown = true;
    stand.take();
    assert.deepEqual([stand.given, stand.written], [2, ["answer"]]);
  });

  const odd: readonly (readonly [string, Parsed, Buffer?])[] = [
    ["no request", { requests: 0 }],
    ["two requests", { requests: 2 }],
    ["a request whose body follows", { isComplete: false }],
    ["the last request of its connection", { isKept: false }],
    ["a head and further bytes", {}, Buffer.concat([HEAD, HEAD])],
    ["a head without its end", {}, HEAD.subarray(0, -1)],
    ["less than the end of a head", {}, HEAD.subarray(0, 3)],
  ];
  for (const [name, parsed, chunk] of odd) {
    void it(`is left to Node after ${name}, which is not remembered`, () => {
      for (const before of [0, 1]) {
        const stand = new Stand();
        for (let i = 0; i < before; i++) stand.take();
        stand.take(parsed, chunk);
        stand.isKnown = true;
        stand.take();
        stand.take();
        assert.deepEqual([stand.given, stand.written], [before + 3, []]);
        assert.deepEqual(stand.remembered, []);
      }
    });
  }

  void it("is left to Node after a request that arrived before the previous response had left", () => {
    const stand = new Stand();
    stand.isKnown = true;
    stand.take({ isAnswered: false });
    stand.take();
    for (const response of stand.responses) response.emit("close");
    stand.take();
    assert.deepEqual([stand.given, stand.written], [3, []]);
    assert.deepEqual(stand.remembered, []);
  });

  void it("is answered again after a slow response has left", () => {
    const stand = new Stand();
    stand.isKnown = true;
    stand.take({ isAnswered: false });
    for (const response of stand.responses) response.emit("close");
    stand.take();
    assert.deepEqual([stand.given, stand.written], [1, ["answer"]]);
  });

  void it("is left to Node while Node is about to close it", () => {
    const stand = new Stand();
    stand.isKnown = true;
    stand.take();
    stand.socket.writable = false;
    stand.take();
    assert.deepEqual([stand.given, stand.written], [2, []]);
  });

  void it("does not remember a head for the response of another connection", () => {
    const stand = new Stand();
    stand.take();
    stand.take({ recalled: 2 });
    assert.deepEqual(stand.remembered, []);
  });
});
