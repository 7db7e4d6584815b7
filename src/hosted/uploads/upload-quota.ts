import type { HostedManifests } from "../../storage/hosted-index.ts";

/** Bytes of open uploads, by hosted registry. */
export class ReservedBytes {
  readonly #bytes = new Map<string, number>();

  of(registry: string): number {
    return this.#bytes.get(registry) ?? 0;
  }

  add(registry: string, bytes: number): void {
    const sum = this.of(registry) + bytes;
    if (sum === 0) this.#bytes.delete(registry);
    else this.#bytes.set(registry, sum);
  }
}

/**
 * Returns the bytes that a hosted registry holds, for a check before the bytes of an upload are
 * received. The transaction that records the blob checks again.
 *
 * @throws IndexError
 */
export async function readUsedBytes(
  index: Pick<HostedManifests, "listHostedRegistries">,
  registry: string,
): Promise<number> {
  const all = await index.listHostedRegistries();
  return all.find((entry) => entry.registry === registry)?.bytes ?? 0;
}
