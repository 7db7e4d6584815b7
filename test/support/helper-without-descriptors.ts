import { openSync } from "node:fs";
import { askHelper } from "../../src/upstream/credentials/credential-helper.ts";

// Run with a low limit of open files: asks a helper while none is left, and prints the answer.
await askHelper("true", "registry.test");
for (;;) {
  try {
    openSync("/dev/null", "r");
  } catch {
    break;
  }
}
const answer = await askHelper("true", "registry.test", {
  timeoutMs: 500,
  maxBytes: 1_024,
});
process.stdout.write(JSON.stringify(answer));
