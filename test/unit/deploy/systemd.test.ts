import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";

const UNIT = await readFile(
  join(import.meta.dirname, "../../../deploy/systemd/entrepot.service"),
  "utf8",
);

/** Maps `Section.Key` to its values, in order. */
const settings = new Map<string, string[]>();
let section = "";
for (const line of UNIT.split("\n")) {
  const [, name] = /^\[(\w+)\]$/.exec(line) ?? [];
  if (name !== undefined) {
    section = name;
  } else if (line !== "" && !line.startsWith("#")) {
    const at = line.indexOf("=");
    assert.notEqual(at, -1, line);
    const key = `${section}.${line.slice(0, at)}`;
    settings.set(key, [...(settings.get(key) ?? []), line.slice(at + 1)]);
  }
}

/** The settings of the sandbox, as far as V8 permits them: it compiles at run time. */
const SANDBOX: Readonly<Record<string, string>> = {
  DynamicUser: "yes",
  UMask: "0077",
  StateDirectoryMode: "0700",
  ProtectSystem: "strict",
  ProtectHome: "yes",
  PrivateTmp: "yes",
  PrivateDevices: "yes",
  NoNewPrivileges: "yes",
  CapabilityBoundingSet: "",
  RestrictAddressFamilies: "AF_INET AF_INET6 AF_UNIX",
  SystemCallFilter: "@system-service",
  MemoryDenyWriteExecute: "no",
  LimitCORE: "0",
};

void describe("deploy/systemd", () => {
  for (const [key, value] of Object.entries(SANDBOX)) {
    void it(`has ${key}=${value}`, () => {
      assert.deepEqual(settings.get(`Service.${key}`), [value]);
    });
  }

  void it("limits memory and tasks, and waits longer than the drain takes", () => {
    assert.match(settings.get("Service.MemoryMax")?.[0] ?? "", /^\d+[MG]$/);
    assert.match(settings.get("Service.TasksMax")?.[0] ?? "", /^\d+$/);
    assert.ok(Number(settings.get("Service.TimeoutStopSec")?.[0]) > 30);
  });

  void it("keeps the cache in a folder that the unit's user can write", () => {
    assert.deepEqual(settings.get("Service.StateDirectory"), ["entrepot"]);
    assert.ok(
      settings
        .get("Service.Environment")
        ?.includes("ENTREPOT_STORAGE__ROOT=/var/lib/entrepot"),
    );
  });

  void it("reloads by the signal that the mirror handles", () => {
    assert.deepEqual(settings.get("Service.ExecReload"), [
      "/bin/kill -HUP $MAINPID",
    ]);
  });

  void it("starts the launcher", () => {
    const [command = ""] = settings.get("Service.ExecStart") ?? [];
    assert.match(command, / \/opt\/entrepot\/bin\/entrepot\.cjs serve$/);
  });
});
