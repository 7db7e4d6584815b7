import { dirname } from "node:path";
import type { FileText } from "./files.ts";

/** What is wrong with who may read or change a file, in words; never a word of what it holds. */
export interface ExposureFlaw {
  readonly seen: string;
  readonly expected: string;
}

type ReadFile = Extract<FileText, { isRead: true }>;

/**
 * A secret that others on this machine may read or change is none: whoever has an account there, or
 * breaks into another service, has the registry's password too. A group may read it, which is how
 * Kubernetes (`fsGroup`) and systemd hand secrets on.
 *
 * @param instead what else may be done, in words
 * @returns undefined where it is for its owner and group alone
 */
export function findSecretFlaw(
  read: ReadFile,
  file: string,
  instead = "",
): ExposureFlaw | undefined {
  const verbs = [
    ...(read.isWorldReadable ? ["read"] : []),
    ...(read.isWorldWritable ? ["change"] : []),
  ];
  if (verbs.length === 0) return findFolderFlaw(read, file);
  return {
    seen: `${file}: mode ${formatMode(read.mode)}, a secret that everybody on this machine may ${verbs.join(" and ")}`,
    expected: `chmod 0600 ${file}, or 0640 with a group that the mirror is in; in Kubernetes defaultMode: 0440 with fsGroup${instead}`,
  };
}

/** What tells who is let in may be read by all, for it holds verifiers alone, but not be changed by them. */
export function findChangeFlaw(
  read: ReadFile,
  file: string,
): ExposureFlaw | undefined {
  return read.isWorldWritable
    ? {
        seen: `${file}: mode ${formatMode(read.mode)}, a file that everybody on this machine may change`,
        expected: `chmod o-w ${file}`,
      }
    : findFolderFlaw(read, file);
}

function findFolderFlaw(
  read: ReadFile,
  file: string,
): ExposureFlaw | undefined {
  if (!read.isReplaceable) return undefined;
  return {
    seen: `${file}: in a folder where everybody on this machine may put another file in its place`,
    expected: `chmod o-w ${dirname(file)}`,
  };
}

function formatMode(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, "0");
}
