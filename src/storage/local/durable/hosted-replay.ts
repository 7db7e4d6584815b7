import { setImmediate as nextTurn } from "node:timers/promises";
import type { Digest } from "../../../oci/digest.ts";
import { parsePushedManifest } from "../../../oci/pushed-manifest.ts";
import type { Clock } from "../../../telemetry/clock.ts";
import type { HostedManifestRecord } from "../../hosted-index.ts";
import {
  MAX_HOSTED_MANIFEST_BYTES,
  readBlobFile,
  readManifestContent,
} from "../blobs/found-blob.ts";
import type {
  HostedName,
  HostedRecovery,
} from "../index/hosted-index/hosted-recovery.ts";
import { pathOf } from "../index/index-keys.ts";
import type { DiskLayout } from "../root/disk-layout.ts";
import { type FileSystem, systemCode } from "../root/file-system.ts";
import {
  type JournalRoot,
  mayBeHosted,
  parseCompleteLine,
  parseLine,
  rootName,
} from "../upkeep/journal-lines.ts";
import type { RootsJournal } from "../upkeep/roots-journal.ts";

export interface HostedReplayParts {
  readonly layout: DiskLayout;
  readonly fileSystem: FileSystem;
  readonly clock: Clock;
  readonly journal: Pick<RootsJournal, "eachLine">;
  readonly recovery: HostedRecovery;
  /** Lists the tags, manifests and deleted blobs of the index. @throws SQLite's errors */
  readonly listNames: () => Iterable<readonly JournalRoot[]>;
  /** Whether the index may be an older copy: content without a line was deleted since. */
  readonly isOlder: boolean;
  /** Called with the registries that the journal names, before anything is restored. */
  readonly onRegistries: (registries: ReadonlySet<string>) => void;
  readonly signal: AbortSignal;
}

export interface HostedReplay {
  /** The number of manifests and tags that were restored. */
  readonly restored: number;
  readonly deleted: number;
  /** Lines that can't be restored, because the manifest is not stored or is damaged. */
  readonly lost: readonly JournalRoot[];
}

/** Names handled before the event loop serves requests again. */
const NAMES_PER_TURN = 64;

/**
 * Makes the hosted rows of the index agree with the journal. Lines are synced before their rows are
 * committed, so that the last line of a name is never older than its row.
 *
 * Only names whose last line differs from its row are kept in memory, and, for an older index, the
 * names of all content.
 *
 * @throws the signal's reason, the system's errors, SQLite's errors, IndexError
 */
export async function replayHosted(
  parts: HostedReplayParts,
): Promise<HostedReplay> {
  return new Replay(parts).run();
}

class Replay {
  readonly #parts: HostedReplayParts;
  readonly #differing = new Map<string, JournalRoot>();
  /** Names with a digest in their last line; only if the index may be older. */
  readonly #existing = new Set<string>();
  readonly #registries = new Set<string>();
  /** The journal has a line for every name that existed at this time. */
  #completeAtMs: number | undefined;
  #restored = 0;
  #deleted = 0;
  readonly #lost: JournalRoot[] = [];
  #sinceTurn = 0;

  constructor(parts: HostedReplayParts) {
    this.#parts = parts;
  }

  async run(): Promise<HostedReplay> {
    const { journal, onRegistries, signal } = this.#parts;
    await journal.eachLine(async (lines) => {
      for (const line of lines) {
        this.#readLine(line);
        await this.#yieldTurn();
      }
    }, signal);
    onRegistries(this.#registries);
    await this.#restoreAll();
    for (const root of this.#differing.values()) {
      if (root.blob !== undefined) await this.#putBlobState(root);
      else if (root.digest === undefined) await this.#remove(root);
    }
    await this.#removeUnlisted();
    return {
      restored: this.#restored,
      deleted: this.#deleted,
      lost: this.#lost,
    };
  }

  #readLine(line: string): void {
    const completeAtMs = parseCompleteLine(line);
    if (completeAtMs !== undefined) this.#noteTime(completeAtMs, true);
    if (!mayBeHosted(line)) return;
    const root = parseLine(line);
    if (root?.isHosted !== true) return;
    this.#noteTime(root.atMs, false);
    this.#registries.add(root.key.upstream);
    const name = rootName(root);
    this.#differing.delete(name);
    const row = this.#parts.recovery.readNow(root);
    if (row.digest !== root.digest || row.blob !== root.blob) {
      this.#differing.set(name, root);
    }
    if (!this.#parts.isOlder) return;
    const isGone = root.digest === undefined && root.blob !== "unlinked";
    if (isGone) this.#existing.delete(name);
    else this.#existing.add(name);
  }

  /** A later line extends a complete journal. */
  #noteTime(atMs: number, isComplete: boolean): void {
    if (!isComplete && this.#completeAtMs === undefined) return;
    this.#completeAtMs = Math.max(this.#completeAtMs ?? 0, atMs);
  }

  async #restoreAll(): Promise<void> {
    /** The lines of each manifest: its own and those of tags, which restore it too. */
    const manifests = new Map<string, JournalRoot[]>();
    for (const root of this.#differing.values()) {
      if (root.digest === undefined) continue;
      const id = `${pathOf(root.key)}@${root.digest}`;
      const lines = manifests.get(id) ?? [];
      lines.push(root);
      manifests.set(id, lines);
    }
    for (const lines of manifests.values()) {
      await this.#restore(lines);
      await this.#yieldTurn();
    }
  }

  async #restore(lines: readonly JournalRoot[]): Promise<void> {
    const root = lines.find(isManifest) ?? lines[0];
    if (root?.digest === undefined) return;
    const { key } = root;
    const manifest = await this.#readManifest(root, root.digest);
    if (manifest === undefined) {
      this.#lost.push(...lines);
      return;
    }
    const tags = lines.flatMap(({ reference, atMs }) =>
      reference.kind === "tag" ? [{ tag: reference.tag, atMs }] : [],
    );
    const blobs: { digest: Digest; sizeBytes: number }[] = [];
    for (const child of manifest.children) {
      await this.#yieldTurn();
      // A manifest has a line of its own.
      if (child.role === "manifest") continue;
      const sizeBytes = await this.#sizeOf(child.digest);
      if (sizeBytes === child.sizeBytes) {
        blobs.push({ digest: child.digest, sizeBytes });
      }
    }
    const { recovery, clock } = this.#parts;
    await recovery.restore({ key, manifest, blobs, tags }, clock.nowMs());
    this.#restored += lines.length;
  }

  /** @returns undefined if it is not stored, or its bytes are not the manifest */
  async #readManifest(
    { mediaType, atMs }: JournalRoot,
    digest: Digest,
  ): Promise<HostedManifestRecord | undefined> {
    const { layout, fileSystem } = this.#parts;
    const sizeBytes = await this.#sizeOf(digest);
    if (sizeBytes === undefined || sizeBytes > MAX_HOSTED_MANIFEST_BYTES) {
      return undefined;
    }
    const path = layout.blobFile(digest);
    const maxWholeBytes = MAX_HOSTED_MANIFEST_BYTES;
    let content;
    try {
      content = await readBlobFile(fileSystem, path, digest, { maxWholeBytes });
    } catch (error) {
      if (UNREADABLE.has(systemCode(error))) return undefined;
      throw error;
    }
    const { bytes } = content;
    const parsed = readManifestContent(bytes, mediaType);
    if (
      content.digest !== digest ||
      bytes === undefined ||
      parsed === undefined
    ) {
      return undefined;
    }
    const pushed = parsePushedManifest(bytes, mediaType);
    return {
      digest,
      sizeBytes: content.sizeBytes,
      storedAtMs: atMs,
      mediaType: parsed.mediaType,
      children: parsed.children,
      subject: parsed.subject,
      artifactType: pushed.ok ? pushed.artifactType : undefined,
      annotations: pushed.ok ? pushed.annotations : undefined,
    };
  }

  async #sizeOf(digest: Digest): Promise<number | undefined> {
    const { layout, fileSystem } = this.#parts;
    try {
      const stat = await fileSystem.statPath(layout.blobFile(digest));
      return stat.isFile ? stat.sizeBytes : undefined;
    } catch (error) {
      const code = systemCode(error);
      if (code === "ENOENT" || code === "ENOTDIR") return undefined;
      throw error;
    }
  }

  /** Unlinks a deleted blob, or links one that was deleted and pushed again. */
  async #putBlobState({
    key,
    reference,
    blob,
    atMs,
  }: JournalRoot): Promise<void> {
    if (reference.kind !== "digest") return;
    const { recovery, clock } = this.#parts;
    const { digest } = reference;
    if (blob === "unlinked") await recovery.unlink(key, digest, atMs);
    else {
      const sizeBytes = await this.#sizeOf(digest);
      await recovery.relink(key, digest, sizeBytes, clock.nowMs());
    }
    await this.#yieldTurn();
  }

  async #remove(name: HostedName): Promise<void> {
    await this.#parts.recovery.remove(name);
    this.#deleted += 1;
    await this.#yieldTurn();
  }

  /**
   * Deletes what the index has and a complete journal does not. A row that is newer than the journal
   * stays: the journal is then the older copy.
   */
  async #removeUnlisted(): Promise<void> {
    const { isOlder, listNames } = this.#parts;
    const completeAtMs = this.#completeAtMs;
    if (!isOlder || completeAtMs === undefined) return;
    for (const page of listNames()) {
      for (const row of page) {
        const isListed = this.#existing.has(rootName(row));
        if (!isListed && row.atMs <= completeAtMs) {
          if (row.blob === undefined) await this.#remove(row);
          else await this.#putBlobState({ ...row, blob: "linked" });
        }
        await this.#yieldTurn();
      }
    }
  }

  async #yieldTurn(): Promise<void> {
    this.#sinceTurn += 1;
    if (this.#sinceTurn % NAMES_PER_TURN !== 0) return;
    this.#parts.signal.throwIfAborted();
    await nextTurn();
  }
}

/** The file is there and its bytes can't be read; a later read would fail as well. */
const UNREADABLE = new Set(["EIO", "EUCLEAN", "EBADMSG", "EOF"]);

function isManifest({ reference }: JournalRoot): boolean {
  return reference.kind === "digest";
}
