import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { parseTokenResponse } from "../../../../src/upstream/auth/token-response.ts";

const CASES: readonly (readonly [string, string | undefined, number])[] = [
  ['{"token":"t"}', "t", 60_000],
  ['{"access_token":"a"}', "a", 60_000],
  ['{"token":"t","access_token":"a","expires_in":300}', "a", 300_000],
  ['{"token":"t","access_token":null}', "t", 60_000],
  ['{"token":"t","access_token":""}', "t", 60_000],
  ['{"token":"t","expires_in":0}', "t", 60_000],
  ['{"token":"t","expires_in":-1}', "t", 60_000],
  ['{"token":"t","expires_in":1e12}', "t", 3_600_000],
  ['{"token":"t","expires_in":1e999}', "t", 3_600_000],
  ['{"token":"t","expires_in":"600"}', "t", 600_000],
  ['{"token":"t","expires_in":"soon"}', "t", 60_000],
  ['{"token":"t","expires_in":{"a":1}}', "t", 60_000],
  ['{"token":"t","expires_in":[{"toString":0}]}', "t", 60_000],
  ['{"token":42}', undefined, 0],
  ['{"token":"a b"}', undefined, 0],
  ['{"token":"a\\r\\nX-Evil: 1"}', undefined, 0],
  [`{"token":"${"x".repeat(20_000)}"}`, undefined, 0],
  ['{"details":"incorrect username"}', undefined, 0],
  ["[]", undefined, 0],
  ["null", undefined, 0],
  ["<html>please log in</html>", undefined, 0],
  ["", undefined, 0],
];

void describe("parseTokenResponse", () => {
  for (const [body, token, lifeMs] of CASES) {
    void it(`reads ${body.slice(0, 60)} as ${token}`, () => {
      const got = parseTokenResponse(Buffer.from(body));
      assert.deepEqual(
        got,
        token === undefined ? undefined : { token, lifeMs },
      );
    });
  }

  void it("returns a lifetime of one minute to one hour for any expires_in", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (expiresIn) => {
        const body = JSON.stringify({ token: "t", expires_in: expiresIn });
        const { lifeMs = 0 } = parseTokenResponse(Buffer.from(body)) ?? {};
        assert.ok(lifeMs >= 60_000 && lifeMs <= 3_600_000);
      }),
    );
  });
});
