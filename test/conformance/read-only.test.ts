import assert from "node:assert/strict";
import { before, describe, it } from "node:test";
import {
  buildConformanceSuite,
  runConformance,
} from "../support/conformance-suite.ts";
import {
  buildArtifact,
  buildImage,
  buildMultiArch,
  bytesBlob,
} from "../support/image-builder.ts";
import { startMirror, upstreamOf } from "../support/mirror-harness.ts";
import { ScriptedUpstream } from "../support/scripted-upstream.ts";
import { tempDir } from "../support/temp-dir.ts";

const REPOSITORY = "conformance/read-only";

const OCI = buildImage({ seed: "conformance oci", layers: [1_000, 200_000] });
const DOCKER = buildImage({ seed: "conformance docker", format: "docker" });
const LONG = buildImage({ seed: "conformance sha512", algorithm: "sha512" });
const INDEX = buildMultiArch({ seed: "conformance index" });
const SIGNATURE = buildArtifact({
  seed: "conformance signature",
  artifactType: "application/vnd.example.signature",
  subject: OCI.manifest,
});
const NOTHING = bytesBlob("");

async function startUpstream(test: Parameters<typeof tempDir>[0]) {
  const upstream = await ScriptedUpstream.start(test);
  const { content } = upstream;
  content.addImage(REPOSITORY, OCI, "oci");
  content.addImage(REPOSITORY, DOCKER, "docker");
  content.addImage(REPOSITORY, LONG, "sha512");
  content.addIndex(REPOSITORY, INDEX, "index");
  content.addImage(REPOSITORY, SIGNATURE);
  content.addBlob(REPOSITORY, NOTHING);
  return upstream;
}

const DATA = {
  tags: ["oci", "docker", "sha512", "index"],
  manifests: [
    OCI.manifest,
    DOCKER.manifest,
    LONG.manifest,
    INDEX.manifest,
    SIGNATURE.manifest,
  ].map(({ digest }) => digest),
  blobs: [...OCI.blobs, ...DOCKER.blobs, ...LONG.blobs, NOTHING].map(
    ({ digest }) => digest,
  ),
  referrers: [OCI.manifest.digest],
};

/** Fewer would mean that the suite tested almost nothing. */
const MIN_PASSED = 30;

void describe("the OCI conformance suite, read-only", () => {
  let program = "";
  before(async () => {
    program = await buildConformanceSuite();
  });

  for (const version of ["1.1", "dev"] as const) {
    for (const cache of ["a cold", "a warm"] as const) {
      void it(`has no complaint of version ${version} about ${cache} mirror`, async (test) => {
        const upstream = await startUpstream(test);
        const mirror = await startMirror(test, [upstreamOf(upstream)]);
        const run = async () =>
          runConformance(program, {
            version,
            registry: `127.0.0.1:${mirror.port}`,
            repository: REPOSITORY,
            data: DATA,
            results: await tempDir(test, "conformance-"),
          });
        if (cache === "a warm") {
          await run();
          await mirror.settled();
        }
        const cases = await run();
        const complaints = cases.filter(
          ({ status }) => status !== "Pass" && status !== "Disabled",
        );
        assert.deepEqual(complaints, []);
        const passed = cases.filter(({ status }) => status === "Pass");
        assert.ok(passed.length >= MIN_PASSED, `${passed.length} passed`);
      });
    }
  }
});
