import { openSync } from "node:fs";
import { Server } from "node:http";

/*
 * Preloaded into a mirror (`node --import`); at each request the mirror leaks the resources that
 * `LEAK_IN_TEST` names, which proves that the test that runs it detects a leak.
 */

const kept: Buffer[] = [];
let hasWarned = false;
const LEAKS: Readonly<Record<string, () => void>> = {
  descriptors: () => void openSync("/dev/null", "r"),
  memory: () => void kept.push(Buffer.alloc(256 * 1024, 1)),
  warnings: () => {
    if (!hasWarned) process.emitWarning("a socket has too many listeners");
    hasWarned = true;
  },
};

const leaks = (process.env["LEAK_IN_TEST"] ?? "").split(",");
// oxlint-disable-next-line typescript/unbound-method -- called with the emitting server
const emit = Server.prototype.emit;
Server.prototype.emit = function (event: string | symbol, ...input: unknown[]) {
  if (event === "request") for (const leak of leaks) LEAKS[leak]?.();
  return Reflect.apply(emit, this, [event, ...input]);
};
