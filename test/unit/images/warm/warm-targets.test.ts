import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { HostedConfig } from "../../../../src/config/config.ts";
import { imageText } from "../../../../src/images/image-reference.ts";
import type { ParsedList } from "../../../../src/images/lists/list-entry.ts";
import type { WarmRequest } from "../../../../src/images/warm/warm-request.ts";
import {
  type TargetParts,
  WarmTargets,
} from "../../../../src/images/warm/warm-targets.ts";
import type { TagsAnswer } from "../../../../src/mirror/lists/tag-lists.ts";
import { createRoutes } from "../../../../src/routing/routes.ts";
import { cacheStatus } from "../../../../src/telemetry/cache-status.ts";
import { UPSTREAM_DEFAULTS } from "../../../support/upstream-defaults.ts";

const NEVER = new AbortController().signal;

const DIGEST = `sha256:${"a".repeat(64)}`;
const HOSTED: HostedConfig = {
  name: "local",
  isDefault: false,
  hostnames: [],
  anonymousPush: "loopback",
  immutableTags: [],
  quotaBytes: Infinity,
  maxManifestBytes: 4_194_304,
  uploadExpiryMs: 86_400_000,
  retention: undefined,
};
const upstreams = ["docker.io", "quay.io"];
const routes = createRoutes(
  upstreams.map((name) => ({
    ...UPSTREAM_DEFAULTS,
    name,
    endpoints: [`https://${name}`],
    isDefault: name === "docker.io",
    libraryPrefix: name === "docker.io",
  })),
  [],
  [HOSTED],
);

const REQUEST: WarmRequest = {
  lists: [],
  refs: [],
  platforms: [],
  withReferrers: false,
  concurrency: 4,
  wait: false,
  pin: false,
  client: "127.0.0.1",
  faults: [],
};

class Scene {
  readonly failures: [string, string][] = [];
  readonly notes: [string, string][] = [];
  parsed: Partial<ParsedList> = {};
  pages: readonly (readonly string[])[] = [];
  isStale = false;
  isOffline = false;
  /** The page at which the list fails. */
  failsAt: number | undefined;
  refreshed = 0;
  hosted = new Set(["local"]);
  stored = new Set(["local/app:1"]);

  targets(request: Partial<WarmRequest> = {}): WarmTargets {
    const parts: TargetParts = {
      parseList: () => ({ entries: [], faults: [], notes: [], ...this.parsed }),
      routes,
      isUpstream: (name) => upstreams.includes(name),
      isHosted: async (name) => this.hosted.has(name),
      isStored: async (image) => this.stored.has(imageText(image)),
      isOffline: () => this.isOffline,
      mirror: {
        refreshTagList: async () => {
          this.refreshed += 1;
        },
        listTags: async (_key, { last }): Promise<TagsAnswer> => {
          const at = Number(last ?? 0);
          if (at === this.failsAt) throw new Error("the index is busy");
          const next = at + 1 < this.pages.length ? String(at + 1) : undefined;
          return {
            page: { entries: this.pages[at] ?? [], nextLast: next },
            status: cacheStatus.hit(),
            ageMs: undefined,
            isStale: this.isStale,
          };
        },
      },
    };
    return new WarmTargets(
      parts,
      { ...REQUEST, ...request },
      {
        fail: (...failure) => this.failures.push(failure),
        note: (...note) => this.notes.push(note),
      },
    );
  }

  async images(request: Partial<WarmRequest>): Promise<readonly string[]> {
    const { images } = await this.targets(request).read(NEVER);
    return images.map(({ image }) => imageText(image));
  }

  async expand(selects: (tag: string) => boolean): Promise<readonly string[]> {
    const expand = await this.expansion(selects);
    return expand();
  }

  /** Returns a function that expands the same entry of the same job each time. */
  async expansion(
    selects: (tag: string) => boolean,
  ): Promise<() => Promise<readonly string[]>> {
    this.parsed = {
      entries: [
        {
          kind: "tags",
          repository: "quay.io/team/app",
          origin: "images.yaml:3",
          platforms: [],
          selects,
        },
      ],
    };
    const targets = this.targets({
      lists: [{ name: "images.yaml", text: "" }],
    });
    const { tags } = await targets.read(NEVER);
    const [first] = tags;
    assert(first !== undefined);
    return async () => {
      const found = await targets.expand(first, NEVER);
      return found.map(({ image }) => imageText(image));
    };
  }
}

void describe("the images of a warm job", () => {
  void it("are read from references as engines write them, each once", async () => {
    const scene = new Scene();
    assert.deepEqual(
      await scene.images({
        refs: [
          "alpine:3",
          "docker.io/library/alpine:3",
          "alpine",
          `quay.io/team/app:1@${DIGEST}`,
        ],
      }),
      [
        "docker.io/library/alpine:3",
        "docker.io/library/alpine:latest",
        `quay.io/team/app@${DIGEST}`,
      ],
    );
    assert.deepEqual(scene.failures, []);
  });

  for (const [ref, want] of [
    ["A:1", "got A:1; expected registry/repository:tag,"],
    [
      "alpine:3.*",
      "got alpine:3.*; expected registry/repository:tag, registry/repository@digest or a name of the default registry; patterns of tags belong in a list in the YAML of skopeo sync",
    ],
    ["ghcr.io/team/app:1", "got ghcr.io, which is not among the upstreams"],
    ["local/app:2", "got an image of a registry that is hosted here"],
  ] as const) {
    void it(`do not include ${ref}, which is reported by name; the rest is used`, async () => {
      const scene = new Scene();
      const images = await scene.images({ refs: [ref, "alpine:3"] });
      assert.deepEqual(images, ["docker.io/library/alpine:3"]);
      const [[name, message] = ["", ""], ...others] = scene.failures;
      assert.deepEqual([name, others], [ref, []]);
      assert.ok(message.startsWith(want), message);
    });
  }

  void it("do not include hosted images, which are present", async () => {
    const scene = new Scene();
    assert.deepEqual(await scene.images({ refs: ["local/app:1"] }), []);
    assert.deepEqual(scene.failures, []);
  });

  void it("have the platforms of their entry, else those of the request", async () => {
    const scene = new Scene();
    scene.parsed = {
      entries: [
        {
          kind: "reference",
          ref: "a:1",
          origin: "l:1",
          platforms: ["linux/arm64"],
        },
        { kind: "reference", ref: "b:1", origin: "l:2", platforms: [] },
      ],
    };
    const { images } = await scene
      .targets({
        lists: [{ name: "l", text: "" }],
        platforms: ["linux/amd64"],
      })
      .read(NEVER);
    assert.deepEqual(
      images.map(({ platforms }) => platforms),
      [["linux/arm64"], ["linux/amd64"]],
    );
  });

  void it("leave turns of the event loop to clients while they are read, and end with their job", async () => {
    const job = new AbortController();
    const targets = new Scene().targets({
      refs: Array.from({ length: 100_000 }, (_, n) => `quay.io/app:${n}`),
    });
    setImmediate(() => job.abort(new Error("the job was cancelled")));
    await assert.rejects(targets.read(job.signal), /the job was cancelled/);
  });

  void it("are named with their line in failures, as are the faults of a list", async () => {
    const scene = new Scene();
    scene.parsed = {
      entries: [
        { kind: "reference", ref: "A:1", origin: "l.yaml:7", platforms: [] },
      ],
      faults: [{ origin: "l.yaml:3", message: "got a; expected b" }],
      notes: [{ origin: "l.yaml:2", message: "a is not used" }],
    };
    await scene.images({
      lists: [{ name: "l.yaml", text: "" }],
      faults: [{ origin: "gone.yaml", message: "not readable" }],
    });
    assert.deepEqual(
      scene.failures.map(([name]) => name),
      ["gone.yaml", "l.yaml:3", "l.yaml:7: A:1"],
    );
    assert.deepEqual(scene.notes, [["l.yaml:2", "a is not used"]]);
  });

  void it("are the selected tags of all pages of a current list", async () => {
    const scene = new Scene();
    scene.pages = [["1.0", "1.1"], [], ["2.0", "not a tag"]];
    assert.deepEqual(await scene.expand((tag) => tag !== "1.1"), [
      "quay.io/team/app:1.0",
      "quay.io/team/app:2.0",
    ]);
    assert.equal(scene.refreshed, 1);
    assert.deepEqual(scene.failures, []);
  });

  void it("are all selected again when a list failed after its first page", async () => {
    const scene = new Scene();
    scene.pages = [["1.0"], ["2.0"]];
    scene.failsAt = 1;
    const expand = await scene.expansion(() => true);
    await assert.rejects(expand(), /the index is busy/);
    scene.failsAt = undefined;
    assert.deepEqual(await expand(), [
      "quay.io/team/app:1.0",
      "quay.io/team/app:2.0",
    ]);
  });

  void it("are reported if the list of tags is not current, or selects nothing", async () => {
    const scene = new Scene();
    scene.pages = [["1.0"]];
    scene.isStale = true;
    await scene.expand(() => true);
    scene.isStale = false;
    await scene.expand(() => false);
    assert.deepEqual(
      scene.failures.map(([name, message]) => [name, message.slice(0, 28)]),
      [
        ["images.yaml:3: quay.io/team/app", "the list of tags is not curr"],
        ["images.yaml:3: quay.io/team/app", "got no tag that the entry se"],
      ],
    );
  });

  void it("do not refresh the list of tags offline", async () => {
    const scene = new Scene();
    scene.isOffline = true;
    scene.pages = [["1.0"]];
    await scene.expand(() => true);
    assert.equal(scene.refreshed, 0);
  });

  void it("are at most 100 000, and the excess is reported once", async () => {
    const scene = new Scene();
    const tags = Array.from({ length: 100_010 }, (_, at) => `t${at}`);
    scene.pages = [tags];
    const found = await scene.expand(() => true);
    assert.equal(found.length, 100_000);
    assert.deepEqual(
      scene.failures.map(([, message]) => message),
      ["got more than 100000 images; expected fewer: split the lists"],
    );
  });
});
