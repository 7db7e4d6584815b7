import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { clip, createLogger } from "../../../src/telemetry/logger.ts";
import {
  createRequestLog,
  type RequestRecord,
} from "../../../src/telemetry/request-log.ts";

const text = fc.oneof(
  fc.string({ unit: "binary", maxLength: 20 }),
  fc.constantFrom("GET", "docker.io", 'a"b\\c\n', "\ud800", "x".repeat(600)),
);
const maybe = fc.option(text, { nil: undefined });

const records: fc.Arbitrary<RequestRecord> = fc.record({
  method: maybe,
  kind: fc.constantFrom("manifest", "tag", "other"),
  upstream: maybe,
  repository: maybe,
  reference: maybe,
  target: maybe,
  outcome: fc.option(fc.constantFrom("hit", "miss"), { nil: undefined }),
  statusCode: fc.nat(999),
  isWhole: fc.boolean(),
  sizeBytes: fc.nat(),
  durationMs: fc.nat().map((n) => n / 10),
  client: maybe,
  user: maybe,
  userAgent: text,
  err: fc.constant(undefined),
});

/** The line without its time, as text, so that the order of fields is compared too. */
function timeless(line: string | undefined): string | undefined {
  return line?.replace(/"time":"[^"]*"/, '"time":""');
}

function collect(level: "info" | "warn" = "info") {
  const lines: string[] = [];
  const log = createLogger(
    { level },
    { write: (line: string) => void lines.push(line) },
  );
  return { log, lines, logRequest: createRequestLog(log) };
}

void describe("the line of a request", () => {
  void it("equals the logger's own output byte for byte", () => {
    const { log, lines, logRequest } = collect();
    fc.assert(
      fc.property(records, (record) => {
        lines.length = 0;
        logRequest(record);
        const { err: _, ...fields } = record;
        log.info({ ...fields, userAgent: clip(fields.userAgent) }, "request");
        assert.equal(timeless(lines[0]), timeless(lines[1]));
        JSON.parse(lines[0] ?? "");
      }),
    );
  });

  void it("is built again if it differs from the previous one in one field", () => {
    const { log, lines, logRequest } = collect();
    fc.assert(
      fc.property(records, records, (one, other) => {
        for (const field of Object.keys(one) as (keyof RequestRecord)[]) {
          logRequest(one);
          lines.length = 0;
          const next: RequestRecord = { ...one, [field]: other[field] };
          logRequest(next);
          const { err: _, ...fields } = next;
          log.info({ ...fields, userAgent: clip(fields.userAgent) }, "request");
          assert.equal(timeless(lines[0]), timeless(lines[1]));
        }
      }),
    );
  });

  void it("logs an error by the logger's own rules", () => {
    const { lines, logRequest } = collect();
    const [record] = fc.sample(records, 1) as [RequestRecord];
    const err = Object.assign(new Error("broke"), { authorization: "Basic x" });
    logRequest({ ...record, err });
    assert.match(lines[0] ?? "", /"message":"broke"/);
    assert.doesNotMatch(lines[0] ?? "", /Basic x/);
  });

  void it("is written only at an enabled level, and follows level changes", () => {
    const { log, lines, logRequest } = collect("warn");
    const [record] = fc.sample(records, 1) as [RequestRecord];
    logRequest(record);
    assert.equal(lines.length, 0);
    log.level = "info";
    logRequest(record);
    assert.equal(lines.length, 1);
  });
});
