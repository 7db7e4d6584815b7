import type { MirrorStatus } from "../http/operator/api-status.ts";
import type {
  EvictionReport,
  ImageList,
  ImageSummary,
} from "../images/images.ts";
import { NOT_AMONG_UPSTREAMS } from "../images/refresh-image.ts";
import { Failed, type ImageBackend, PAGE } from "./image-backend.ts";
import { type AskMirror, problemText } from "./running-mirror.ts";

/** Performs the image commands through the operator API of a running mirror. */
export function askRunningImages(ask: AskMirror): ImageBackend {
  const call = async <T>(
    method: Parameters<AskMirror>[0],
    path: string,
    body?: unknown,
  ): Promise<T | undefined> => {
    const answer = await ask(method, `/api/v1${path}`, body);
    const detail = problemText(answer.body);
    if (answer.status === 404) {
      if (detail === "offline") {
        throw new Failed(1, "the running mirror is offline");
      }
      if (detail.endsWith(NOT_AMONG_UPSTREAMS)) throw new Failed(1, detail);
      return undefined;
    }
    // The mirror refuses the request for a reason that the operator can change.
    if (answer.status === 403 || answer.status === 409) {
      throw new Failed(1, detail);
    }
    if (answer.status === 400) throw new Failed(2, detail);
    if (answer.status !== 200) {
      throw new Failed(
        1,
        `the running mirror answered ${answer.status}: ${detail}`,
      );
    }
    return answer.body as T;
  };
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
    close: () => Promise.resolve(),
  };
}

function required<T>(found: T | undefined): T {
  if (found === undefined) {
    throw new Failed(1, "the running mirror has another version");
  }
  return found;
}
