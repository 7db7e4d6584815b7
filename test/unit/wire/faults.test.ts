import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  UpstreamError,
  type UpstreamErrorKind,
} from "../../../src/wire/errors.ts";
import {
  abortFault,
  bodyFault,
  dialFault,
  isBrokenConnection,
  isGivenUp,
  severityOf,
} from "../../../src/wire/faults.ts";

const PLACE = { upstream: "u", origin: "https://reg.example" };

const CASES: readonly (readonly [
  code: string,
  dial: UpstreamErrorKind,
  body: UpstreamErrorKind,
  severity: "severe" | "mild",
])[] = [
  ["ECONNREFUSED", "unreachable", "interrupted", "severe"],
  ["ENOTFOUND", "unreachable", "interrupted", "severe"],
  ["EAI_AGAIN", "unreachable", "interrupted", "severe"],
  ["EHOSTUNREACH", "unreachable", "interrupted", "severe"],
  ["UND_ERR_CONNECT_TIMEOUT", "timeout", "timeout", "severe"],
  ["UND_ERR_HEADERS_TIMEOUT", "timeout", "timeout", "mild"],
  ["UND_ERR_BODY_TIMEOUT", "timeout", "timeout", "mild"],
  ["ETIMEDOUT", "timeout", "timeout", "severe"],
  ["CERT_HAS_EXPIRED", "unreachable", "interrupted", "severe"],
  ["ERR_TLS_CERT_ALTNAME_INVALID", "unreachable", "interrupted", "severe"],
  ["DEPTH_ZERO_SELF_SIGNED_CERT", "unreachable", "interrupted", "severe"],
  ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "unreachable", "interrupted", "severe"],
  ["UND_ERR_SOCKET", "unreachable", "interrupted", "mild"],
  ["ECONNRESET", "unreachable", "interrupted", "mild"],
  ["HPE_INVALID_CHUNK_SIZE", "bad-response", "interrupted", "mild"],
  ["UND_ERR_HEADERS_OVERFLOW", "bad-response", "interrupted", "mild"],
  [
    "UND_ERR_RES_CONTENT_LENGTH_MISMATCH",
    "bad-response",
    "interrupted",
    "mild",
  ],
  ["", "unreachable", "interrupted", "mild"],
];

void describe("faults", () => {
  for (const [code, dial, body, severity] of CASES) {
    void it(`${code || "an error without a code"} is ${dial} before the headers and ${body} after them`, () => {
      const cause = Object.assign(new Error("secret?sig=1"), { code });
      const fault = dialFault(cause, PLACE);
      assert.equal(fault.kind, dial);
      assert.equal(fault.cause, cause);
      assert.equal(fault.origin, PLACE.origin);
      assert.doesNotMatch(fault.message, /secret/);
      assert.equal(severityOf(fault), severity);
      assert.equal(bodyFault(cause, PLACE).kind, body);
    });
  }

  void it("has no severity if the request was ended on our side", () => {
    const fault = abortFault(AbortSignal.abort("the queue was long"), PLACE);
    assert.equal(fault.kind, "timeout");
    assert.equal(severityOf(fault), undefined);
    assert.equal(isGivenUp(fault), true);
  });

  void it("keeps an UpstreamError unchanged", () => {
    const ours = new UpstreamError("too-large", "much", PLACE);
    assert.equal(dialFault(ours, PLACE), ours);
    assert.equal(bodyFault(ours, PLACE), ours);
    assert.equal(isBrokenConnection(ours), false);
  });

  void it("has no severity for an answer that is merely unwelcome", () => {
    const answers: readonly UpstreamErrorKind[] = [
      "not-found",
      "denied",
      "unauthorized",
      "rate-limited",
      "too-large",
    ];
    for (const kind of answers) {
      assert.equal(severityOf(new UpstreamError(kind, "", PLACE)), undefined);
    }
    const refused = new UpstreamError("bad-response", "", {
      ...PLACE,
      status: 416,
    });
    assert.equal(severityOf(refused), undefined);
  });
});
