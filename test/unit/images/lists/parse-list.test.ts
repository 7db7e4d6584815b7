import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import {
  LIST_FORMATS,
  type ListFormat,
} from "../../../../src/images/lists/list-entry.ts";
import { parseList } from "../../../../src/images/lists/parse-list.ts";
import { outlineList } from "../../../support/list-outline.ts";

const PROJECT = join(import.meta.dirname, "../../../..");
const POD = "apiVersion: v1\nkind: Pod\nspec: {containers: [{image: 'a:1'}]}\n";
const EMPTY = { entries: [], faults: [], notes: ["1 the list names no image"] };

void describe("the grammar of a list", () => {
  const TEXTS: readonly {
    readonly name: string;
    readonly text: string;
    readonly want: readonly string[];
  }[] = [
    { name: "a reference", text: "a:1", want: ["1 a:1"] },
    { name: "a name", text: "a", want: ["1 a"] },
    {
      name: "a registry with a port",
      text: "# x: y\n\nr.io:5000/a",
      want: ["3 r.io:5000/a"],
    },
    {
      name: "skopeo in block style",
      text: "# x\nr.io:\n  images:\n    a: ['1']",
      want: ["4 r.io/a:1"],
    },
    {
      name: "skopeo in flow style",
      text: '{"r.io":{"images":{"a":["1"]}}}',
      want: ["1 r.io/a:1"],
    },
    {
      name: "skopeo with a quoted port",
      text: '"r.io:5000":\n  images: {a: ["1"]}',
      want: ["2 r.io:5000/a:1"],
    },
    {
      name: "skopeo with a registry without images first",
      text: "q.io:\nr.io: {images-by-semver: {a: '1'}}",
      want: ["2 r.io/a: "],
    },
    { name: "a manifest", text: POD, want: ["3 a:1"] },
    { name: "a manifest after a marker", text: `---\n${POD}`, want: ["4 a:1"] },
    {
      name: "a manifest after a directive",
      text: `%YAML 1.2\n---\n${POD}`,
      want: ["5 a:1"],
    },
    {
      name: "a manifest after a byte order mark",
      text: `\uFEFF${POD}`,
      want: ["3 a:1"],
    },
    {
      name: "a manifest with Windows line ends",
      text: POD.replaceAll("\n", "\r\n"),
      want: ["3 a:1"],
    },
    {
      name: "a compose file",
      text: "x-y: &z {image: 'a:1'}\nservices: {b: *z}",
      want: ["1 a:1"],
    },
    {
      name: "hauler Charts before Images",
      text: "apiVersion: content.hauler.cattle.io/v1\nkind: Charts\n---\napiVersion: content.hauler.cattle.io/v1\nkind: Images\nspec: {images: [{name: 'a:1'}]}",
      want: ["6 a:1"],
    },
    {
      name: "an image set",
      text: "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror: {additionalImages: [{name: 'a:1'}]}",
      want: ["3 a:1"],
    },
  ];
  for (const { name, text, want } of TEXTS) {
    void it(`is recognised: ${name}`, () => {
      const { entries, faults } = outlineList(text);
      assert.deepEqual({ entries, faults }, { entries: want, faults: [] });
    });
  }

  void it("is named in the fault of a file of another kind", () => {
    for (const [line, text] of [
      [1, "- a:1\n- b:1"],
      [1, "a: {b: c}"],
      [1, "apiVersion: v2\nname: chart\nversion: 1.0.0"],
      [3, "# x\n---\nlisten: 127.0.0.1:5000"],
      [1, '["a:1"]'],
      [1, '{"auths": {"r.io": {"auth": "c2VjcmV0"}}}'],
    ] as const) {
      const { entries, faults } = outlineList(text);
      assert.deepEqual(entries, []);
      assert.deepEqual(faults, [
        `${line} got another kind of file; expected the YAML of skopeo sync, Kubernetes manifests, a compose file, hauler Images, an ImageSetConfiguration, or one reference per line (--format forces one of them)`,
      ]);
    }
  });

  void it("is not that of a configuration of this mirror", () => {
    const files = globSync("config/*.yaml", { cwd: PROJECT });
    assert.ok(files.length >= 5);
    for (const file of files) {
      const text = readFileSync(join(PROJECT, file), "utf8");
      const { entries, faults } = outlineList(text);
      assert.deepEqual(entries, [], file);
      assert.match(faults.join(), /^\d+ got another kind of file; /, file);
    }
  });

  void it("is recognised in the manifests and compose files of deploy/", () => {
    for (const [file, ...images] of [
      [
        "compose/compose.yaml",
        "entrepot",
        "prom/prometheus",
        "grafana/grafana",
      ],
      ["registry/compose.yaml", "entrepot"],
      ["kubernetes/entrepot.yaml", "registry.corp/entrepot"],
      ["kubernetes/containerd-hosts.yaml", "busybox"],
    ] as const) {
      const text = readFileSync(join(PROJECT, "deploy", file), "utf8");
      const { entries, faults } = outlineList(text);
      assert.deepEqual(faults, []);
      assert.deepEqual(
        entries.map((entry) =>
          entry.replace(/^\d+ /, "").replace(/:[^:]+$/, ""),
        ),
        images,
      );
    }
  });

  void it("can be forced", () => {
    for (const [format, text, want] of [
      ["skopeo", "hub: {images: {a: ['1']}}", ["1 hub/a:1"]],
      ["kubernetes", "spec: {containers: [{image: 'a:1'}]}", ["1 a:1"]],
      ["plain", "a:1", ["1 a:1"]],
      ["skopeo", "r.io: {}", []],
      ["compose", "services: {}", []],
    ] as const) {
      const { entries, faults } = outlineList(text, { format });
      assert.deepEqual({ entries, faults }, { entries: want, faults: [] });
    }
  });

  void it("is a fault when a text of another one is forced into it", () => {
    for (const format of LIST_FORMATS) {
      const { entries, faults, notes } = outlineList("nothing: of that", {
        format,
      });
      assert.deepEqual(entries, []);
      assert.ok(faults.length + notes.length > 0, format);
    }
  });
});

void it("name Docker Hub where a tool means it", () => {
  for (const [text, ...want] of [
    [
      "apiVersion: v1\nkind: Pod\nspec: {containers: [{image: a:1}, {image: b/c}, {image: localhost/d}, {image: 'e:5000/f'}]}",
      "docker.io/a:1",
      "docker.io/b/c",
      "localhost/d",
      "e:5000/f",
    ],
    ["services: {a: {image: 'a:1'}}", "docker.io/a:1"],
    [
      "apiVersion: content.hauler.cattle.io/v1\nkind: Images\nspec: {images: [{name: 'a:1'}]}",
      "docker.io/a:1",
    ],
    [
      "apiVersion: mirror.openshift.io/v2alpha1\nkind: ImageSetConfiguration\nmirror: {additionalImages: [{name: 'a:1'}]}",
      "docker.io/a:1",
    ],
    ["a:1\nhub/b:1\nquay.io/c:1", "a:1", "hub/b:1", "quay.io/c:1"],
    [
      "q.io: {images: {a: ['1']}}\nhub: {images: {a: ['1']}}",
      "q.io/a:1",
      "hub/a:1",
    ],
  ] as const) {
    assert.deepEqual(
      parseList({ name: "-", text }).entries.map((entry) =>
        entry.kind === "reference" ? entry.ref : entry.repository,
      ),
      want,
    );
  }
});

void describe("texts that are not lists", () => {
  void it("are named: UTF-16, and templates of charts", () => {
    const utf16 = Buffer.from("alpine:3\n", "utf16le").toString();
    assert.match(outlineList(utf16).faults.join(), /^1 got NUL characters; /);
    for (const [line, text] of [
      [1, "{{- if .Values.enabled }}\napiVersion: v1\n{{- end }}"],
      [3, "apiVersion: v1\nkind: Pod\nspec: {{ toYaml .Values.spec }}\n"],
    ] as const) {
      assert.deepEqual(outlineList(text).faults, [
        `${line} got a template; expected what it renders, as printed by 'helm template'`,
      ]);
    }
  });
});

void describe("any list", () => {
  const LINES =
    `apiVersion: v1|kind: Pod|kind: List|spec:|items:|containers:|- image: a:1|image: b:1|- c|volumes:
services:|r.io:|images:|images-by-semver:|a: []|a: ['1', x]|b: '>=1'|<<: *a|x: &a|---|...|- *a|mirror:|additionalImages:
- name: a:1|platforms:|apiVersion: content.hauler.cattle.io/v1|kind: Images|apiVersion: mirror.openshift.io/v2alpha1
extends: a|null|kind: ImageSetConfiguration|a:|b:|{|}|[|]|"|credentials:|profiles: [x]`.split(
      /[|\n]/,
    );
  const line = fc
    .tuple(fc.integer({ min: 0, max: 4 }), fc.constantFrom(...LINES))
    .map(([indent, text]) => `${"  ".repeat(indent)}${text}`);
  const text = fc.oneof(
    fc.string({ unit: "binary", maxLength: 200 }),
    fc.array(line, { maxLength: 20 }).map((lines) => lines.join("\n")),
  );

  void it("is parsed without a throw, and names places within it", () => {
    fc.assert(
      fc.property(
        text,
        fc.option(fc.constantFrom<ListFormat>(...LIST_FORMATS), {
          nil: undefined,
        }),
        (list, format) => {
          const parsed = parseList({ name: "f.yaml", text: list, format });
          const count = list.split(/\r\n|[\n\r]/).length;
          for (const found of [
            ...parsed.entries,
            ...parsed.faults,
            ...parsed.notes,
          ]) {
            const [, at = ""] = /^f\.yaml:(\d+)$/.exec(found.origin) ?? [];
            assert.ok(Number(at) >= 1 && Number(at) <= count, found.origin);
          }
          for (const entry of parsed.entries) {
            if (entry.kind === "tags") entry.selects("1.0");
          }
          assert.ok(
            parsed.entries.length + parsed.faults.length + parsed.notes.length >
              0,
          );
        },
      ),
    );
  });

  void it("names the same images in every grammar that can hold them", () => {
    const reference = fc
      .tuple(
        fc.constantFrom("r.io", "localhost:5000", "quay.io"),
        fc.stringMatching(/^[a-z0-9]{1,8}(?:[._/-][a-z0-9]{1,8}){0,3}$/),
        fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,20}$/),
      )
      .map(([registry, name, tag]) => ({ registry, name, tag }));
    fc.assert(
      fc.property(fc.array(reference, { minLength: 1 }), (references) => {
        const refs = references.map(
          ({ registry, name, tag }) => `${registry}/${name}:${tag}`,
        );
        const images = refs.map((image) => ({ image }));
        const names = refs.map((name) => ({ name }));
        const lists: Readonly<Record<ListFormat, unknown>> = {
          plain: undefined,
          kubernetes: {
            apiVersion: "v1",
            kind: "Pod",
            spec: { containers: images },
          },
          compose: { services: Object.fromEntries(images.entries()) },
          hauler: {
            apiVersion: "content.hauler.cattle.io/v1",
            kind: "Images",
            spec: { images: names },
          },
          imageset: {
            apiVersion: "mirror.openshift.io/v2alpha1",
            kind: "ImageSetConfiguration",
            mirror: { additionalImages: names },
          },
          skopeo: skopeoList(references),
        };
        for (const [format, list] of Object.entries(lists)) {
          const written =
            format === "plain" ? refs.join("\n") : JSON.stringify(list);
          const parsed = parseList({ name: "-", text: written });
          assert.deepEqual(parsed.faults, []);
          assert.deepEqual(
            parsed.entries
              .map((entry) => (entry.kind === "reference" ? entry.ref : ""))
              .sort(),
            refs.toSorted(),
            format,
          );
        }
      }),
      { numRuns: 50 },
    );
  });
});

interface NamedImage {
  readonly registry: string;
  readonly name: string;
  readonly tag: string;
}

function skopeoList(references: readonly NamedImage[]): unknown {
  const list: Record<string, { images: Record<string, string[]> }> = {};
  for (const { registry, name, tag } of references) {
    const { images } = (list[registry] ??= { images: {} });
    (images[name] ??= []).push(tag);
  }
  return list;
}

void it("notes that an empty list of each grammar names nothing", () => {
  assert.deepEqual(outlineList("services: {}"), EMPTY);
  assert.deepEqual(outlineList("apiVersion: v1\nkind: Service"), EMPTY);
  assert.deepEqual(outlineList("---\n"), EMPTY);
});
