import assert from "node:assert/strict";
import { chmod } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  makeConfigFolder,
  printedFaults,
  printedWarnings,
} from "../../support/config-folder.ts";

const CREDENTIALS =
  "upstreams:\n  quay.io:\n    credentials: { username: a, password: b }\n    access: shared\n";

void describe("operator.tokenFile", () => {
  for (const { name, text, seen } of [
    {
      name: "is refused where it is short",
      text: "secret\n",
      seen: "no token",
    },
    { name: "is refused where it is empty", text: "", seen: "no token" },
    {
      name: "is refused where it is two lines",
      text: "0123456789abcdef\n0123456789abcdef\n",
      seen: "no token",
    },
    {
      name: "is refused where it is not there",
      text: undefined,
      seen: "no such file",
    },
  ]) {
    void it(name, async (test) => {
      const folder = await makeConfigFolder(test);
      if (text !== undefined) await folder.write("token", text);
      const result = await folder.loadText("operator: { tokenFile: token }\n");
      const [fault = "", ...others] = printedFaults(result);
      assert.match(fault, new RegExp(`operator\\.tokenFile: .*: ${seen}; `));
      assert.deepEqual(others, []);
    });
  }

  void it("is refused where others may read it, and never shown", async (test) => {
    const folder = await makeConfigFolder(test);
    await folder.write("token", "canary-0123456789\n");
    await chmod(join(folder.path, "token"), 0o604);
    const result = await folder.loadText("operator: { tokenFile: token }\n");
    const [fault = ""] = printedFaults(result);
    assert.match(
      fault,
      /mode 0604, .*everybody on this machine may read; chmod 0600 /,
    );
    assert.ok(!JSON.stringify(result).includes("canary"));
  });
});

void describe("credentials behind an address that others reach (S26)", () => {
  for (const { name, yaml, isWarned } of [
    {
      name: "are warned of",
      yaml: `listen: 0.0.0.0:5000\n${CREDENTIALS}`,
      isWarned: true,
    },
    {
      name: "are warned of on one of several addresses",
      yaml: `listen: ["[::1]:5000", 10.0.0.1:5000]\n${CREDENTIALS}`,
      isWarned: true,
    },
    {
      name: "are fine on this machine's own",
      yaml: `listen: ["[::1]:5000", 127.0.0.1:5000]\n${CREDENTIALS}`,
      isWarned: false,
    },
    {
      name: "are fine with networks",
      yaml: `listen: 0.0.0.0:5000\naccess: { anonymousNetworks: [10.0.0.0/8] }\n${CREDENTIALS}`,
      isWarned: false,
    },
    {
      name: "are not there in zero configuration",
      yaml: "listen: 0.0.0.0:5000\n",
      isWarned: false,
    },
  ]) {
    void it(name, async (test) => {
      const folder = await makeConfigFolder(test);
      const result = await folder.loadText(yaml);
      assert.deepEqual(printedFaults(result), []);
      const warned = printedWarnings(result).filter((line) =>
        line.includes("everybody who reaches the mirror"),
      );
      assert.equal(warned.length, isWarned ? 1 : 0);
    });
  }
});

void describe("trustedProxies and limits", () => {
  for (const [yaml, seen] of [
    ["trustedProxies: [proxy.corp]\n", "trustedProxies[0]"],
    ["trustedProxies: [10.0.0.0/33]\n", "trustedProxies[0]"],
    ["limits: { connections: -1 }\n", "limits.connections"],
    ["limits: { fills: -1 }\n", "limits.fills"],
    [
      "limits: { connectionsPerAddress: 1.5 }\n",
      "limits.connectionsPerAddress",
    ],
  ] as const) {
    void it(`are refused as ${yaml.trim()}`, async (test) => {
      const folder = await makeConfigFolder(test);
      const [fault = ""] = printedFaults(await folder.loadText(yaml));
      assert.ok(fault.includes(seen), fault);
    });
  }
});
