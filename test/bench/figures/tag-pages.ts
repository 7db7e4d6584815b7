import { type Figure, median } from "../figure.ts";
import { newImage, Pusher, putTags } from "../push.ts";
import type { Rig } from "../rig.ts";
import type { Server } from "../server.ts";

const FEW = 1_000;
const MANY = 100_000;
const PAGE = 100;
const MIB = 1024 ** 2;

interface Walk {
  readonly pageMs: readonly number[];
  readonly grownBytes: number;
}

/** Tags of one repository, pushed over HTTP, then listed page by page as a client does. */
export const tagPages: Figure = {
  name: "tag-pages",
  title: `tags/list of ${MANY} tags in one repository, page by page`,
  commands: [],
  async run(rig) {
    const few = await walkTags(rig, FEW);
    const many = await walkTags(rig, MANY);
    const unit = "seconds";
    return {
      measures: [
        {
          contestant: "Entrepot",
          what: `page of ${PAGE}, of ${FEW}`,
          unit,
          samples: seconds(few),
        },
        {
          contestant: "Entrepot",
          what: `page of ${PAGE}, of ${MANY}`,
          unit,
          samples: seconds(many),
        },
      ],
      bars: [
        {
          text: `a page: ${MANY} ÷ ${FEW} tags`,
          value: median(many.pageMs) / median(few.pageMs),
          demand: "at most",
          bar: 1.5,
          aim: 1,
          unit: "×",
        },
        {
          text: "memory grown by all pages",
          value: many.grownBytes / MIB,
          demand: "at most",
          bar: 32,
          aim: 8,
          unit: "MiB",
        },
      ],
    };
  },
};

async function walkTags(rig: Rig, count: number): Promise<Walk> {
  const server = await rig.startEntrepot({
    config: { upstreams: {}, hosted: { local: { default: true } } },
  });
  const repository = "bench/tags";
  const pusher = new Pusher(server, repository);
  rig.onClose(() => pusher.close());
  const image = newImage("first", 0, MIB);
  await pusher.push(image);
  const names = Array.from(
    { length: count - 1 },
    (_, at) => `t${String(at).padStart(6, "0")}`,
  );
  await putTags(server, repository, image, names);
  await listTags(server, repository, count, () => undefined);
  const before = server.rssBytes();
  const pageMs: number[] = [];
  await listTags(server, repository, count, (ms) => pageMs.push(ms));
  return { pageMs, grownBytes: server.rssBytes() - before };
}

async function listTags(
  server: Server,
  repository: string,
  expected: number,
  onPage: (ms: number) => void,
): Promise<void> {
  let path: string | undefined = `/v2/${repository}/tags/list?n=${PAGE}`;
  let found = 0;
  while (path !== undefined) {
    const startMs = performance.now();
    const response: Response = await fetch(server.origin + path);
    const { tags } = (await response.json()) as { readonly tags: string[] };
    onPage(performance.now() - startMs);
    found += tags.length;
    [, path] = /<([^>]+)>/.exec(response.headers.get("link") ?? "") ?? [];
  }
  if (found !== expected) {
    throw new Error(`got ${found} tags; expected ${expected}`);
  }
}

function seconds({ pageMs }: Walk): readonly number[] {
  return pageMs.map((ms) => ms / 1000);
}
