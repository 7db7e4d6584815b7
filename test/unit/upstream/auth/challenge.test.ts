import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { parseChallenges } from "../../../../src/upstream/auth/challenge.ts";

type Want = readonly (readonly [string, Readonly<Record<string, string>>])[];

const CASES: readonly {
  readonly name: string;
  readonly input: string;
  readonly want: Want;
}[] = [
  {
    name: "Docker Hub's",
    input:
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"',
    want: [
      [
        "bearer",
        {
          realm: "https://auth.docker.io/token",
          service: "registry.docker.io",
          scope: "repository:library/alpine:pull",
        },
      ],
    ],
  },
  {
    name: "two in one header, in any case",
    input: 'BASIC Realm="a, b", bearer REALM=https://h/token,Service=s',
    want: [
      ["basic", { realm: "a, b" }],
      ["bearer", { realm: "https://h/token", service: "s" }],
    ],
  },
  {
    name: "commas and escaped quotes within quotes",
    input: 'Bearer scope="repository:a:pull,push",note="say \\"x, y\\""',
    want: [["bearer", { scope: "repository:a:pull,push", note: 'say "x, y"' }]],
  },
  {
    name: "blanks around the equals sign and empty list elements",
    input: ', ,Bearer realm = "r" , , service= s',
    want: [["bearer", { realm: "r", service: "s" }]],
  },
  {
    name: "a scheme without parameters, and one with a token",
    input: 'Negotiate, NTLM TlRMTVNTUAAB==, Basic realm="x"',
    want: [
      ["negotiate", {}],
      // The scheme is not supported, so its token does not matter.
      ["ntlm", { tlrmtvntuaab: "=" }],
      ["basic", { realm: "x" }],
    ],
  },
  {
    name: "the first of a name given twice",
    input: 'Bearer realm="https://good",realm="https://evil"',
    want: [["bearer", { realm: "https://good" }]],
  },
  {
    name: "a quote that never ends",
    input: 'Bearer realm="https://h/token',
    want: [["bearer", { realm: "https://h/token" }]],
  },
  { name: "parameters of no scheme", input: 'realm="x",service=y', want: [] },
  { name: "nothing", input: "", want: [] },
];

void describe("parseChallenges", () => {
  for (const { name, input, want } of CASES) {
    void it(`reads ${name}`, () => {
      const got = parseChallenges(input).map(({ scheme, parameters }) => [
        scheme,
        Object.fromEntries(parameters),
      ]);
      assert.deepEqual(got, want);
    });
  }

  void it("parses every value that can be quoted", () => {
    const token = fc.stringMatching(/^[A-Za-z][A-Za-z0-9-]{0,10}$/);
    const value = fc.string({ maxLength: 40 });
    const parameters = fc.dictionary(
      token.map((name) => name.toLowerCase()),
      value,
      { minKeys: 1, maxKeys: 5, noNullPrototype: true },
    );
    fc.assert(
      fc.property(
        fc.array(fc.tuple(token, parameters), { minLength: 1, maxLength: 4 }),
        (challenges) => {
          const header = challenges
            .map(
              ([scheme, fields]) =>
                `${scheme} ${Object.entries(fields)
                  .map(
                    ([name, text]) =>
                      `${name}="${text.replaceAll(/["\\]/g, "\\$&")}"`,
                  )
                  .join(", ")}`,
            )
            .join(", ");
          const got = parseChallenges(header).map(
            ({ scheme, parameters: read }) => [scheme, new Map(read)],
          );
          const want = challenges.map(([scheme, fields]) => [
            scheme.toLowerCase(),
            new Map(Object.entries(fields)),
          ]);
          assert.deepEqual(got, want);
        },
      ),
    );
  });

  void it("never throws and stays within its bounds", () => {
    const hostile = fc.string({
      unit: fc.constantFrom('"', "\\", "=", ",", " ", "a", "B", ";", "é", "\0"),
      maxLength: 400,
    });
    fc.assert(
      fc.property(hostile, (header) => {
        const challenges = parseChallenges(header);
        assert.ok(challenges.length <= 16);
        for (const { parameters } of challenges) {
          assert.ok(parameters.size <= 32);
        }
      }),
    );
  });
});
