import { openSync } from "node:fs";
import { Server } from "node:http";

/*
 * Preloaded into a mirror (`node --import`), it makes that leak what `LEAK_IN_TEST` names, at each
 * request: so that a test can show that it would notice.
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
// oxlint-disable-next-line typescript/unbound-method -- called with the server that emits
const emit = Server.prototype.emit;
Server.prototype.emit = function (event: string | symbol, ...input: unknown[]) {
  if (event === "request") for (const leak of leaks) LEAKS[leak]?.();
  return Reflect.apply(emit, this, [event, ...input]);
};
