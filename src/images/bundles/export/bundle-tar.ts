import { Readable } from "node:stream";
import { createTarPacker } from "modern-tar";
import type { BundleMember } from "../bundle.ts";

/** Every header is the same for the same member, on every machine and at every time. */
const FIXED_HEADER = {
  type: "file",
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtime: new Date(0),
} as const;

/**
 * Packs members into a tar archive, in their order: POSIX ustar, with a PAX header for a size of 8 GiB
 * or more and for a long path. A member is opened when the ones before it are written, and read at the
 * pace of the reader of the archive.
 *
 * @returns the archive; it fails with the error of a member, and never ends as a whole archive then
 */
export function packBundle(members: Iterable<BundleMember>): Readable {
  return Readable.from(pack(members), { objectMode: false });
}

async function* pack(
  members: Iterable<BundleMember>,
): AsyncGenerator<Uint8Array> {
  const { readable, controller } = createTarPacker();
  const write = async (): Promise<void> => {
    for (const member of members) {
      const writer = controller
        .add({ ...FIXED_HEADER, name: member.path, size: member.sizeBytes })
        .getWriter();
      // A failure is that of the write that waits for it.
      writer.closed.catch(() => undefined);
      for await (const chunk of member.open()) {
        await writer.write(chunk);
      }
      await writer.close();
    }
    controller.finalize();
  };
  const written = write().catch((error: unknown) => controller.error(error));
  const reader = readable.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
    await written;
  }
}
