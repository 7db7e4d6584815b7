import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FillSlots } from "../../../src/mirror/fill-slots.ts";
import { RegistryError } from "../../../src/oci/errors.ts";

const REFUSED = (error: unknown): boolean =>
  error instanceof RegistryError &&
  error.code === "UNAVAILABLE" &&
  error.status === 503;

void describe("the slots of fills", () => {
  void it("go to those who wait in the order in which they came", async () => {
    const slots = new FillSlots(
      () => 1,
      () => undefined,
    );
    const release = await slots.acquire();
    const admitted: number[] = [];
    const waiting = [1, 2].map(async (number) => {
      const end = await slots.acquire();
      admitted.push(number);
      end();
    });
    release();
    await Promise.all(waiting);
    assert.deepEqual(admitted, [1, 2]);
  });

  void it("refuse who waits and who comes once they are closed, though one is held", async () => {
    let asked = 0;
    const slots = new FillSlots(
      () => 1,
      () => asked++,
    );
    const release = await slots.acquire();
    const waiting = [slots.acquire(), slots.acquire()];
    assert.equal(asked, 2);
    slots.close();
    for (const one of waiting) await assert.rejects(one, REFUSED);
    release();
    await assert.rejects(slots.acquire(), REFUSED);
    assert.equal(asked, 2);
  });
});
