import { dirname } from "node:path";
import type { Flaw } from "../fault.ts";
import { type FileText, seenIn } from "./files.ts";

type ReadFile = Extract<FileText, { isRead: true }>;

/**
 * Finds why a secret file is not private to its owner and group. If other users may read or change
 * it, any account on the machine, or an attacker in another service, has the registry's password
 * too. The group may read it: Kubernetes (`fsGroup`) and systemd pass secrets that way.
 *
 * @param instead another way to repair it, for the fault
 */
export function findSecretFlaw(
  read: ReadFile,
  file: string,
  instead = "",
): Flaw | undefined {
  const exposures = [
    ...(read.isWorldReadable ? ["readable"] : []),
    ...(read.isWorldWritable ? ["writable"] : []),
  ];
  if (exposures.length === 0) return findFolderFlaw(read, file);
  return {
    seen: seenIn(
      file,
      `mode ${formatMode(read.mode)}, ${exposures.join(" and ")} by every user of this machine`,
    ),
    expected:
      "mode 0600, or 0640 with a group of the mirror; in Kubernetes defaultMode: 0440 with fsGroup",
    fix: `run chmod 0600 ${file}${instead}`,
  };
}

/** Finds why other users may change a file that decides about access. They may read it: it holds only verifiers. */
export function findChangeFlaw(read: ReadFile, file: string): Flaw | undefined {
  return read.isWorldWritable
    ? {
        seen: seenIn(
          file,
          `mode ${formatMode(read.mode)}, writable by every user of this machine`,
        ),
        expected: "a file that only its owner and group may change",
        fix: `run chmod o-w ${file}`,
      }
    : findFolderFlaw(read, file);
}

function findFolderFlaw(read: ReadFile, file: string): Flaw | undefined {
  if (!read.isReplaceable) return undefined;
  return {
    seen: seenIn(
      file,
      "in a folder that is writable by every user of this machine",
    ),
    expected: "a folder that only its owner and group may change",
    fix: `run chmod o-w ${dirname(file)}`,
  };
}

function formatMode(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, "0");
}
