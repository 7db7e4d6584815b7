import type { GarbageReport } from "../../hosted/collection.ts";
import type { MirrorStatus } from "../../http/operator/api-status.ts";
import type {
  EvictionReport,
  ImageList,
  ImageSummary,
} from "../../images/images.ts";
import { NOT_AMONG_UPSTREAMS } from "../../images/refresh-image.ts";
import {
  Failed,
  type ImageBackend,
  PAGE,
  type Tagged,
} from "./image-backend.ts";
import {
  type AskMirror,
  GC_PATH,
  type OperatorAnswer,
  problemText,
} from "../running-mirror.ts";

/** Performs the image commands through the operator API of a running mirror. */
export function askRunningImages(ask: AskMirror): ImageBackend {
  const call = async <T>(
    method: Parameters<AskMirror>[0],
    path: string,
    body?: unknown,
  ): Promise<T | undefined> =>
    read(await ask(method, `/api/v1${path}`, body)) as T | undefined;
  return {
    storedBytes: async () =>
      required(await call<MirrorStatus>("GET", "/status")).storage.bytes,
    async list(pattern) {
      const images: ImageSummary[] = [];
      let last: string | null | undefined;
      do {
        const query = new URLSearchParams({ n: String(PAGE) });
        if (pattern !== undefined) query.set("q", pattern);
        if (typeof last === "string") query.set("last", last);
        const page = required(
          await call<ImageList>("GET", `/images?${query.toString()}`),
        );
        images.push(...page.images);
        last = page.last;
      } while (typeof last === "string");
      return images;
    },
    inspect: (ref) => call("GET", `/images/${ref}`),
    setPinned: (ref, isPinned) =>
      call(isPinned ? "PUT" : "DELETE", `/images/${ref}/pin`),
    remove: (ref) => call("DELETE", `/images/${ref}`),
    evict: async ({ toBytes, isDryRun }) =>
      required(
        await call<EvictionReport>("POST", "/evict", {
          ...(toBytes === undefined ? {} : { toBytes }),
          dryRun: isDryRun,
        }),
      ),
    refresh: (ref) => call("POST", `/images/${ref}/refresh`),
    async tag(source, target) {
      const answer = await ask("POST", "/api/v1/tags", { source, target });
      // The detail names the missing content.
      if (answer.status === 404) throw new Failed(1, problemText(answer.body));
      return required(read(answer) as Tagged | undefined);
    },
    untag: (ref) => call("DELETE", `/tags/${ref}`),
    collect: async (isDryRun) =>
      required(
        read(await ask("POST", GC_PATH, { dryRun: isDryRun })) as
          GarbageReport | undefined,
      ),
    close: () => Promise.resolve(),
  };
}

/** @returns undefined if the image is not stored. @throws Failed */
function read({ status, body }: OperatorAnswer): unknown {
  if (status === 200) return body;
  const detail = problemText(body);
  switch (status) {
    case 404:
      if (detail === "offline") {
        throw new Failed(1, "the running mirror is offline");
      }
      if (detail.endsWith(NOT_AMONG_UPSTREAMS)) throw new Failed(1, detail);
      return undefined;
    // The reason is the operator's to change: an immutable tag, a quota, a token.
    case 403:
    case 409:
      throw new Failed(1, detail);
    case 400:
      throw new Failed(2, detail);
    default:
      throw new Failed(1, `the running mirror answered ${status}: ${detail}`);
  }
}

function required<T>(found: T | undefined): T {
  if (found === undefined) {
    throw new Failed(1, "the running mirror has another version");
  }
  return found;
}
