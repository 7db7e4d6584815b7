import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  REGISTRY_ERROR_CODES,
  RegistryError,
  registryErrorBody,
} from "../../../src/oci/errors.ts";

void describe("RegistryError", () => {
  for (const code of REGISTRY_ERROR_CODES) {
    void it(`${code} has an error status, a message, and the body of the spec`, () => {
      const error = new RegistryError(code);
      assert(error.status >= 400 && error.status < 600);
      assert.deepEqual(JSON.parse(error.toBody()), {
        errors: [{ code, message: error.message }],
      });
      assert.equal(registryErrorBody(code), error.toBody());
    });
  }

  void it("does not reveal its cause in the body", () => {
    const cause = new Error("secret of the upstream");
    const error = new RegistryError("UNAVAILABLE", {
      cause,
      detail: "breaker",
      status: 503,
      retryAfterMs: 1500,
    });
    assert.equal(error.cause, cause);
    assert.equal(error.status, 503);
    assert.equal(error.retryAfterMs, 1500);
    assert.deepEqual(JSON.parse(error.toBody()), {
      errors: [
        {
          code: "UNAVAILABLE",
          message: "upstream unavailable",
          detail: "breaker",
        },
      ],
    });
  });

  void it("replaces a message that describes the mirror", () => {
    const message = "no space left";
    const body = new RegistryError("UNAVAILABLE", { message }).toBody();
    assert.deepEqual(JSON.parse(body), {
      errors: [{ code: "UNAVAILABLE", message }],
    });
  });

  void it("escapes quotes in a detail", () => {
    const detail = '"}]}\r\n\u2028';
    const body = new RegistryError("UNKNOWN", { detail }).toBody();
    assert(!body.includes("\r") && !body.includes("\n"));
    assert.deepEqual(JSON.parse(body), {
      errors: [{ code: "UNKNOWN", message: "unknown error", detail }],
    });
  });
});
