import { RegistryError } from "../../oci/errors.ts";
import type { HostedManifests } from "../../storage/hosted-index.ts";
import type { Room } from "../../retention/room.ts";
import { countPassingBytes } from "../../wire/chunk-garbage.ts";
import type { HostedRepository } from "../hosted.ts";
import { overQuota } from "../quota-refusal.ts";
import type { UploadBody } from "./upload-body.ts";
import { readUsedBytes, type ReservedBytes } from "./upload-quota.ts";
import type { UploadSession } from "./upload-session.ts";
import { UploadSpace } from "./upload-space.ts";

/** The part of a blob that a request announces; both ends inclusive. */
export interface ChunkRange {
  readonly first: number;
  readonly last: number;
}

export interface ReceiveParts {
  readonly index: Pick<HostedManifests, "listHostedRegistries">;
  readonly reserved: ReservedBytes;
  /** Absent: the room is not limited before the disk is full. */
  readonly room?: Pick<Room, "reserve"> | undefined;
  readonly onReceived: (registry: string, bytes: number) => void;
}

/** The request contradicts itself, so none of its bytes can be trusted. */
export class WrongLength extends Error {
  constructor() {
    super("got a body of another length; expected the announced length");
    this.name = "WrongLength";
  }
}

/**
 * Checks the headers of a request about its body, before the body is read.
 *
 * @throws RegistryError; the upload is unchanged
 */
export function checkRange(
  session: UploadSession,
  body: UploadBody,
  range: ChunkRange | undefined,
): void {
  if (range === undefined) return;
  const { first, last } = range;
  if (first !== session.writtenBytes || last < first) {
    throw new RegistryError("RANGE_INVALID", {
      detail: "got a chunk elsewhere; expected one that continues the upload",
    });
  }
  const { lengthBytes } = body;
  if (lengthBytes !== undefined && lengthBytes !== last - first + 1) {
    throw new RegistryError("SIZE_INVALID", {
      detail:
        "got a Content-Length that differs from the Content-Range; expected the same length",
    });
  }
}

/**
 * Appends a body to an upload. Its bytes are hashed as they are stored, and the client sends no
 * faster than they are stored.
 *
 * @param isWhole whether the body is the whole blob
 * @throws RegistryError if quota or space are used up; StorageError; IndexError; BrokenUploadBody;
 *   WrongLength
 */
export async function receiveBody(
  parts: ReceiveParts,
  { config }: HostedRepository,
  session: UploadSession,
  body: UploadBody,
  { range, isWhole }: { range: ChunkRange | undefined; isWhole: boolean },
): Promise<void> {
  const { index, reserved, onReceived } = parts;
  const registry = session.key.upstream;
  const length =
    body.lengthBytes ??
    (range === undefined ? undefined : range.last - range.first + 1);
  if (length === 0) {
    if ((await body.read()) !== undefined) throw new WrongLength();
    return;
  }
  const usedBytes =
    config.quotaBytes === Infinity ? 0 : await readUsedBytes(index, registry);
  const space = new UploadSpace(parts.room);
  let receivedBytes = 0;
  const checkQuota = (bytes: number): void => {
    session.count(bytes);
    if (usedBytes + reserved.of(registry) > config.quotaBytes) {
      // What is refused must not make other uploads fail.
      session.count(0);
      throw overQuota(registry);
    }
  };
  try {
    checkQuota(length ?? 0);
    await space.begin(length);
    const writer = await session.writer(isWhole ? length : undefined);
    for (;;) {
      const chunks = await body.read();
      if (chunks === undefined) break;
      const bytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
      receivedBytes += bytes;
      if (length !== undefined && receivedBytes > length) {
        throw new WrongLength();
      }
      if (length === undefined) checkQuota(bytes);
      await space.admit(bytes);
      await writer.append(chunks);
      onReceived(registry, bytes);
      countPassingBytes(bytes);
    }
    if (length !== undefined && receivedBytes < length) throw new WrongLength();
  } finally {
    space.end();
    if (receivedBytes > 0) session.touch();
  }
}
