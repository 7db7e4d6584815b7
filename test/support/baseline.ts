import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import type { ChildMirror } from "./child-mirror.ts";

/** Resources of a process while it has no requests. */
export interface QuietPoint {
  /** Descriptors other than connections. */
  readonly files: number;
  readonly sockets: number;
  /** Descriptors of blobs and partials; included in `files`. */
  readonly storageFiles: number;
  readonly rssBytes: number;
  /** Bytes of objects and buffers after a full garbage collection. */
  readonly liveBytes: number;
  readonly partials: number;
  readonly intents: number;
}

export interface BaselineBounds {
  /** Tolerated difference of descriptors: each thread has one or two. */
  readonly descriptors: number;
  readonly liveGrowthBytes: number;
  /** Tolerated difference of memory: the allocator keeps freed memory below memory in use. */
  readonly residentGrowthBytes: number;
}

/** Counts the descriptors by kind, as listed by the system. */
export function openDescriptors(
  pid: number,
  root: string,
): Pick<QuietPoint, "files" | "sockets" | "storageFiles"> {
  const storage = ["blobs/", "partial/"].map((folder) => join(root, folder));
  const open = { files: 0, sockets: 0, storageFiles: 0 };
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    let target: string;
    try {
      target = readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      continue;
    }
    if (target.startsWith("socket:")) open.sockets += 1;
    else open.files += 1;
    if (storage.some((folder) => target.startsWith(folder))) {
      open.storageFiles += 1;
    }
  }
  return open;
}

/** Preloads what {@link collectIn} asks. */
export const COLLECTING = `--import=${join(import.meta.dirname, "collecting.ts")}`;

/** Returns the live bytes of a process that preloaded {@link COLLECTING}, after a full collection. */
export function collectIn({
  child,
}: Pick<ChildMirror, "child">): Promise<number> {
  const earlier = child.lines.filter(({ text }) => COLLECTED.test(text)).length;
  let seen = 0;
  child.signal("SIGUSR2");
  return child.line((line) => {
    const left = COLLECTED.exec(line);
    if (left !== null) seen += 1;
    return seen > earlier ? Number(left?.[1]) : undefined;
  });
}

const COLLECTED = /^\{"msg":"collected","liveBytes":(\d+)\}$/;

export function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

/**
 * Returns one text for each leaked resource. Counts are compared with the first point; memory by the
 * medians of the first and the last third, because the collector runs at any time.
 *
 * @param points after the warm-up, in their order
 */
export function judgeBaseline(
  points: readonly QuietPoint[],
  bounds: BaselineBounds,
): readonly string[] {
  const [first] = points;
  const last = points.at(-1);
  if (first === undefined || last === undefined) return ["no quiet point"];
  const faults: string[] = [];
  for (const kind of ["files", "sockets"] as const) {
    if (last[kind] > first[kind] + bounds.descriptors) {
      faults.push(`open ${kind}: ${first[kind]} at first, ${last[kind]} now`);
    }
  }
  for (const kind of ["storageFiles", "intents"] as const) {
    const held = points.filter((point) => point[kind] > 0).length;
    if (held > 0) faults.push(`${kind} are held at ${held} quiet points`);
  }
  if (last.partials > 0) faults.push(`partials: ${last.partials} are left`);
  const live = growthOf(points, "liveBytes");
  if (live > bounds.liveGrowthBytes) {
    faults.push(`live: ${live} bytes more in the last third`);
  }
  const resident = growthOf(points, "rssBytes");
  if (resident > bounds.residentGrowthBytes) {
    faults.push(`resident: ${resident} bytes more in the last third`);
  }
  return faults;
}

/** From the first third of the points to the last. */
export function growthOf(
  points: readonly QuietPoint[],
  kind: "liveBytes" | "rssBytes",
): number {
  const third = Math.max(1, Math.floor(points.length / 3));
  const median = (of: readonly QuietPoint[]): number =>
    of.map((point) => point[kind]).toSorted((a, b) => a - b)[
      Math.floor(of.length / 2)
    ] ?? 0;
  return median(points.slice(-third)) - median(points.slice(0, third));
}
