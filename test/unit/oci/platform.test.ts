import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { digestOf } from "../../../src/oci/digest.ts";
import {
  isUnknownPlatform,
  readConfigPlatform,
  readIndexPlatforms,
} from "../../../src/oci/platform.ts";

const A = digestOf(Buffer.from("a"));
const B = digestOf(Buffer.from("b"));

function bytesOf(value: unknown): Buffer {
  return Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
}

void describe("readConfigPlatform", () => {
  const amd64 = { os: "linux", architecture: "amd64" };
  for (const { name, config, want } of [
    { name: "os and architecture", config: amd64, want: "linux/amd64" },
    {
      name: "a variant",
      config: { os: "linux", architecture: "arm", variant: "v7" },
      want: "linux/arm/v7",
    },
    {
      name: "an empty variant",
      config: { ...amd64, variant: "" },
      want: "linux/amd64",
    },
    { name: "an artifact's empty object", config: {}, want: undefined },
    { name: "no object", config: [amd64], want: undefined },
    { name: "no JSON", config: "{", want: undefined },
    {
      name: "a line break in a part",
      config: { ...amd64, os: "linux\nforged" },
      want: undefined,
    },
    {
      name: "a part that is too long",
      config: { ...amd64, architecture: "a".repeat(65) },
      want: undefined,
    },
    {
      name: "lists that are too deep",
      config: `{"os":"linux","architecture":"amd64","x":${"[".repeat(40)}${"]".repeat(40)}}`,
      want: undefined,
    },
  ]) {
    void it(`returns ${want ?? "nothing"} for ${name}`, () => {
      assert.equal(readConfigPlatform(bytesOf(config)), want);
    });
  }

  void it("never throws, for any bytes", () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string()), (text) => {
        readConfigPlatform(Buffer.from(text));
        readIndexPlatforms(Buffer.from(text));
      }),
    );
  });
});

void describe("readIndexPlatforms", () => {
  void it("returns the platform of each child that has one", () => {
    const manifests = [
      { digest: A, platform: { os: "linux", architecture: "amd64" } },
      { digest: B },
      { digest: "sha256:abc", platform: { os: "a", architecture: "b" } },
      null,
      "text",
    ];
    assert.deepEqual(
      [...readIndexPlatforms(bytesOf({ manifests }))],
      [[A, "linux/amd64"]],
    );
  });

  void it("returns none for a document that is not an index", () => {
    for (const value of ["", "[]", { manifests: {} }, { layers: [] }]) {
      assert.equal(readIndexPlatforms(bytesOf(value)).size, 0);
    }
  });
});

void describe("isUnknownPlatform", () => {
  void it("is true only for the platform of an attestation", () => {
    assert.equal(isUnknownPlatform("unknown/unknown"), true);
    assert.equal(isUnknownPlatform("unknown/amd64"), false);
  });
});
