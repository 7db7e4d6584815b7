import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parse as parseYaml } from "yaml";
import { WELL_KNOWN_UPSTREAMS } from "../../../src/config/schema/well-known-upstreams.ts";
import { createProgram } from "../../../src/cli/command-line.ts";
import { createMetrics } from "../../../src/telemetry/metrics.ts";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import { makeConfigFolder } from "../../support/config-folder.ts";
import {
  CLIENT_FILES,
  listClientFiles,
} from "../../support/engines/client-files.ts";
import { anchorOf, codeBlocksOf } from "../../support/markdown.ts";
import { FIGURES } from "../../bench/figures.ts";

const PROJECT = join(import.meta.dirname, "../../..");

const clientFiles = await listClientFiles();
const readme = await readFile(join(PROJECT, "README.md"), "utf8");
const blocks = codeBlocksOf(readme);
const commands = blocks
  .filter(({ language }) => language === "sh")
  .map(({ text }) => text.replaceAll("\\\n", "").replaceAll(/ +/g, " "))
  .join("");

void describe("the README", () => {
  for (const path of clientFiles) {
    void it(`quotes deploy/clients/${path} as it is`, async () => {
      const text = await readFile(join(CLIENT_FILES, path), "utf8");
      assert.ok(blocks.some((block) => block.text === text));
    });
  }

  void it("shows only the clients' files and three configurations, which the mirror accepts", async (test) => {
    const files = await Promise.all(
      clientFiles.map((path) => readFile(join(CLIENT_FILES, path), "utf8")),
    );
    const others = blocks.filter(
      ({ language, text }) =>
        language !== "sh" && language !== "text" && !files.includes(text),
    );
    assert.deepEqual(
      others.map(({ language }) => language),
      ["yaml", "yaml", "yaml"],
    );
    const folder = await makeConfigFolder(test);
    await folder.write("secrets/registry-corp", "correct horse\n");
    await folder.write("corp-ca.crt", createCertificateAuthority().cert);
    for (const { text } of others) {
      const result = await folder.loadText(text);
      assert.ok(result.ok, JSON.stringify(result));
      // What a hosted default means for dockerd's mirrors is said beside it.
      const warned = result.warnings.map(({ path }) => path);
      assert.ok(warned.every((path) => path === "hosted.local.default"));
      const { upstreams, hosted } = parseYaml(text) as {
        readonly upstreams?: object;
        readonly hosted?: object;
      };
      if (upstreams !== undefined) {
        assert.deepEqual(
          result.config.upstreams.map(({ name }) => name),
          Object.keys(upstreams),
        );
      }
      if (hosted !== undefined) {
        assert.deepEqual(
          result.config.hosted.map(({ name }) => name),
          Object.keys(hosted),
        );
      }
    }
  });

  void it("names the registries that need no configuration", () => {
    const [, list = ""] = /it mirrors (docker\.io.+?)\.\n/.exec(readme) ?? [];
    assert.deepEqual(list.split(/, | and /), [...WELL_KNOWN_UPSTREAMS]);
  });

  void it("names only metrics that exist", () => {
    const names = createMetrics("0.0.0")
      .registry.getMetricsAsArray()
      .map(({ name }) => name);
    const named = readme.match(/\bentrepot_[a-z_]+/g) ?? [];
    assert.ok(named.length > 5);
    assert.deepEqual(
      named.filter((name) => !names.includes(name)),
      [],
    );
  });

  void it("runs scripts that package.json has, and the tests as .ci/run does", async () => {
    const { scripts } = JSON.parse(
      await readFile(join(PROJECT, "package.json"), "utf8"),
    ) as { scripts: Record<string, string> };
    for (const [, name = ""] of commands.matchAll(/npm run (\S+)/g)) {
      assert.ok(name in scripts, name);
    }
    for (const line of ["npm ci && npm start", "npm ci && npm test"]) {
      assert.ok(commands.split("\n").includes(line), line);
    }
    const ci = await readFile(join(PROJECT, ".ci/run"), "utf8");
    assert.ok(ci.includes('"npm ci && npm test"'));
  });

  void it("runs the container with the volume and the ports of the Dockerfile", async () => {
    const dockerfile = await readFile(join(PROJECT, "Dockerfile"), "utf8");
    const [, volume] = /^VOLUME (\S+)$/m.exec(dockerfile) ?? [];
    const [, ports = ""] = /^EXPOSE (.+)$/m.exec(dockerfile) ?? [];
    assert.ok(commands.includes(`--volume entrepot:${volume}`));
    assert.deepEqual(
      [...commands.matchAll(/--publish 127\.0\.0\.1:(\d+):(\d+)/g)].map(
        ([, outside, inside]) => [outside, inside],
      ),
      ports.split(" ").map((port) => [port, port]),
    );
  });

  void it("names files of the project that exist in its commands", () => {
    const paths = commands.match(/\b(?:deploy|config)\/\S+/g) ?? [];
    assert.ok(paths.length >= 4);
    for (const path of paths) assert.ok(existsSync(join(PROJECT, path)), path);
  });

  void it("shows only commands and options of entrepot that exist", () => {
    const lines = commands.split("\n").flatMap((line) => {
      const [, args] =
        /^(?:npm run |.* exec entrepot )?entrepot (?:-- )?(.+)$/.exec(line) ??
        [];
      return args === undefined ? [] : [args.split(" ")];
    });
    assert.ok(lines.length >= 10);
    const program = createProgram();
    for (const [name = "", ...args] of lines) {
      const top = program.commands.find((one) => one.name() === name);
      assert.ok(top !== undefined, name);
      const command = top.commands.find((one) => one.name() === args[0]) ?? top;
      const options = command.options.map(({ long }) => long);
      for (const arg of args.filter((one) => one.startsWith("--"))) {
        assert.ok(options.includes(arg), `${name} ${arg}`);
      }
    }
  });

  void it("lists every section in its table of contents", () => {
    const [contents = ""] = readme.split(/^## /m);
    const listed = [...contents.matchAll(/\]\(#([^)]+)\)/g)].map(
      ([, anchor]) => anchor,
    );
    const headings = [...readme.matchAll(/^###? (.+)$/gm)].map(
      ([, heading = ""]) => anchorOf(heading),
    );
    assert.deepEqual(listed, headings);
  });

  void it("compares only by figures that test/bench/README.md states", async () => {
    const page = await readFile(join(PROJECT, "test/bench/README.md"), "utf8");
    const bench = page.replaceAll(/ +/g, " ");
    const rows = [
      ...readme.matchAll(/^\|[^|]+\|([^|]+)\| `npm run bench -- (\S+)` *\|$/gm),
    ];
    assert.ok(rows.length >= 10);
    for (const [row, ratios = "", name = ""] of rows) {
      assert.ok(
        FIGURES.some((figure) => figure.name === name),
        name,
      );
      const stated = ratios.match(/[\d.]+ ×/g) ?? [];
      assert.ok(stated.length > 0, row);
      for (const ratio of stated) {
        assert.ok(bench.includes(`| ${ratio} |`), row);
      }
    }
  });
});
