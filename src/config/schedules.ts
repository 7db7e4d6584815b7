import { type ConfigDocument, hostedOf, type Pruned } from "./document.ts";
import { formatSeen, type KeyPath, type PlacedFault } from "./fault.ts";

/**
 * Finds schedules that never fire, or that the library that runs them rejects. Loads the library only if
 * a schedule is configured.
 */
export async function checkSchedules(
  document: Pruned<ConfigDocument>,
): Promise<PlacedFault[]> {
  const faults: PlacedFault[] = [];
  for (const { path, schedule } of schedulesOf(document)) {
    const expected = await findScheduleFlaw(schedule);
    if (expected === undefined) continue;
    faults.push({ path, seen: formatSeen(schedule), expected });
  }
  return faults;
}

function* schedulesOf(
  document: Pruned<ConfigDocument>,
): Generator<{ readonly path: KeyPath; readonly schedule: string }> {
  for (const [name, { retention }] of hostedOf(document)) {
    const { schedule } = retention ?? {};
    if (schedule === undefined) continue;
    yield { path: ["hosted", name, "retention", "schedule"], schedule };
  }
  for (const [index, list] of (document.warm ?? []).entries()) {
    const { schedule } = list ?? {};
    if (schedule === undefined) continue;
    yield { path: ["warm", index, "schedule"], schedule };
  }
}

/** Returns the expectation that the schedule does not meet; undefined if it is valid. */
async function findScheduleFlaw(schedule: string): Promise<string | undefined> {
  const { Cron } = await import("croner");
  let next: Date | null;
  try {
    next = new Cron(schedule, { paused: true, mode: "5-part" }).nextRun();
  } catch {
    return "a cron expression of five fields, such as 0 3 * * *";
  }
  return next === null ? "a schedule with a date that exists" : undefined;
}
