import assert, { AssertionError } from "node:assert/strict";
import { describe, it } from "node:test";
import { StorageError } from "../../../src/storage/blob-store.ts";
import { createLogger } from "../../../src/telemetry/logger.ts";
import { UpstreamError } from "../../../src/wire/errors.ts";

interface ErrorRecord {
  readonly message: string;
  readonly type: string;
  readonly stack?: string;
  readonly [field: string]: unknown;
}

function logged(error: unknown): ErrorRecord {
  const lines: string[] = [];
  const log = createLogger(
    { level: "info" },
    { write: (line: string) => void lines.push(line) },
  );
  log.info({ err: error }, "request");
  return (JSON.parse(lines[0] ?? "") as { readonly err: ErrorRecord }).err;
}

function system(code: string, message = code): Error {
  return Object.assign(new Error(message), { code });
}

function upstream(cause: unknown): UpstreamError {
  return new UpstreamError("unreachable", "https://a.test: failed", {
    upstream: "a.test",
    cause,
  });
}

void describe("an error in the log", () => {
  const expected: readonly (readonly [string, Error])[] = [
    ["an upstream that is away", upstream(system("ECONNREFUSED"))],
    [
      "an upstream of several addresses that is away",
      upstream(
        new AggregateError([system("ECONNREFUSED"), system("ENETUNREACH")]),
      ),
    ],
    ["several errors", new AggregateError([system("ECONNREFUSED")], "all")],
    ["a client that has left", system("ECONNRESET", "aborted")],
    ["a signal", new DOMException("given up", "AbortError")],
    ["a full disk", new StorageError("write", "ENOSPC")],
    ["upstream's JSON", upstream(new SyntaxError("Unexpected token"))],
  ];
  for (const [name, error] of expected) {
    void it(`has no stack for ${name}`, () => {
      assert.doesNotMatch(JSON.stringify(logged(error)), /"stack"|\.ts:\d/);
    });
  }

  void it("includes causes in its message, and its own fields", () => {
    const record = logged(upstream(system("ECONNREFUSED", "connect refused")));
    assert.equal(record.message, "https://a.test: failed: connect refused");
    assert.equal(record.type, "UpstreamError");
    assert.equal(record["kind"], "unreachable");
  });

  const bugs: readonly (readonly [string, Error])[] = [
    ["a wrong type", new TypeError("x is not a function")],
    ["a broken promise of our own", new Error("not validated")],
    ["an assertion", new AssertionError({ message: "never" })],
    ["one that was taken for the upstream's", upstream(new TypeError("x"))],
  ];
  for (const [name, error] of bugs) {
    void it(`has a stack for ${name}`, () => {
      assert.match(logged(error).stack ?? "", /error-record\.test\.ts:\d/);
    });
  }

  void it("accepts any thrown value, and circular causes", () => {
    const error = system("EAGAIN");
    error.cause = error;
    assert.equal(logged(error).stack, undefined);
    assert.equal(logged("thrown"), "thrown");
  });
});
