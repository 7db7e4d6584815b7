import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import type { ChildMirror } from "./child-mirror.ts";

/** What a process holds while nobody asks it for anything. */
export interface QuietPoint {
  /** Descriptors of anything but connections. */
  readonly files: number;
  readonly sockets: number;
  /** Of blobs and partials, among `files`. */
  readonly storageFiles: number;
  readonly rssBytes: number;
  /** Of objects and buffers, when all garbage is collected. */
  readonly liveBytes: number;
  readonly partials: number;
  readonly intents: number;
}

export interface BaselineBounds {
  /** What descriptors may differ by: a thread more or less has one or two of its own. */
  readonly descriptors: number;
  readonly liveGrowthBytes: number;
  /** What was given back stays with the allocator where something behind it is still held. */
  readonly residentGrowthBytes: number;
}

/** Descriptors by kind, as the system lists them. */
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

/** Live bytes of a process that preloaded {@link COLLECTING}, once all garbage is collected. */
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
 * What did not come back, one text each. The first point is the baseline of what is counted; memory
 * is judged by the medians of the first and the last third, because one point is chance: the
 * collector runs when it likes.
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
