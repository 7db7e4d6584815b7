import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { logPushLimit } from "../../../src/app/push-notice.ts";
import { createLogger } from "../../../src/telemetry/logger.ts";
import { accessConfig } from "../../support/access.ts";
import { hostedConfig } from "../../support/hosted-config.ts";

type NoticeConfig = Parameters<typeof logPushLimit>[0];

const ANY = { host: "0.0.0.0", port: 5000 };
const LOOPBACK = { host: "127.0.0.1", port: 5000 };
const local = hostedConfig();
const open = hostedConfig({ name: "open", anonymousPush: "anywhere" });
const team = hostedConfig({ name: "team" });

void describe("the notice about pushes at the start", () => {
  const cases: readonly (readonly [string, NoticeConfig, unknown])[] = [
    [
      "names the registries and a key",
      { listen: [ANY], hosted: [local, open, team] },
      {
        registries: ["local", "team"],
        set: "hosted.local.anonymousPush: anywhere, or access with users",
      },
    ],
    [
      "does not appear with a loopback listener",
      { listen: [ANY, LOOPBACK], hosted: [local] },
      undefined,
    ],
    [
      "does not appear with access",
      { listen: [ANY], hosted: [local], access: accessConfig() },
      undefined,
    ],
    [
      "does not appear if every client may push, or none",
      {
        listen: [ANY],
        hosted: [open, hostedConfig({ anonymousPush: "none" })],
      },
      undefined,
    ],
    [
      "does not appear if nothing is hosted",
      { listen: [ANY], hosted: [] },
      undefined,
    ],
  ];
  for (const [name, config, want] of cases) {
    void it(name, () => {
      const lines: Record<string, unknown>[] = [];
      const log = createLogger(
        { level: "info" },
        { write: (line) => void lines.push(JSON.parse(line) as never) },
      );
      logPushLimit(config, log);
      const [line] = lines;
      assert.equal(lines.length, want === undefined ? 0 : 1);
      if (line === undefined) return;
      assert.deepEqual(
        { registries: line["registries"], set: line["set"] },
        want,
      );
      assert.equal(
        line["msg"],
        "only clients on this machine may push; no client of a container is on its machine",
      );
    });
  }
});
