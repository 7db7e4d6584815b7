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
      name: "is rejected if it is short",
      text: "secret\n",
      seen: "an invalid token",
    },
    { name: "is rejected if it is empty", text: "", seen: "an invalid token" },
    {
      name: "is rejected if it has two lines",
      text: "0123456789abcdef\n0123456789abcdef\n",
      seen: "an invalid token",
    },
    {
      name: "is rejected if the file is missing",
      text: undefined,
      seen: "no such file",
    },
  ]) {
    void it(name, async (test) => {
      const folder = await makeConfigFolder(test);
      if (text !== undefined) await folder.write("token", text);
      const result = await folder.loadText("operator: { tokenFile: token }\n");
      const [fault = "", ...others] = printedFaults(result);
      assert.match(
        fault,
        new RegExp(`operator\\.tokenFile: got .* \\(${seen}\\); expected `),
      );
      assert.deepEqual(others, []);
    });
  }

  void it("is rejected if other users may read it, and never printed", async (test) => {
    const folder = await makeConfigFolder(test);
    await folder.write("token", "canary-0123456789\n");
    await chmod(join(folder.path, "token"), 0o604);
    const result = await folder.loadText("operator: { tokenFile: token }\n");
    const [fault = ""] = printedFaults(result);
    assert.match(
      fault,
      /mode 0604, readable by every user of this machine\); .*; run chmod 0600 /,
    );
    assert.ok(!JSON.stringify(result).includes("canary"));
  });
});

void describe("credentials of a mirror on a network address (S26)", () => {
  for (const { name, yaml, isWarned } of [
    {
      name: "cause a warning",
      yaml: `listen: 0.0.0.0:5000\n${CREDENTIALS}`,
      isWarned: true,
    },
    {
      name: "cause a warning on one of several addresses",
      yaml: `listen: ["[::1]:5000", 10.0.0.1:5000]\n${CREDENTIALS}`,
      isWarned: true,
    },
    {
      name: "cause no warning on loopback addresses",
      yaml: `listen: ["[::1]:5000", 127.0.0.1:5000]\n${CREDENTIALS}`,
      isWarned: false,
    },
    {
      name: "cause no warning with anonymousNetworks",
      yaml: `listen: 0.0.0.0:5000\naccess: { anonymousNetworks: [10.0.0.0/8] }\n${CREDENTIALS}`,
      isWarned: false,
    },
    {
      name: "cause no warning without configuration",
      yaml: "listen: 0.0.0.0:5000\n",
      isWarned: false,
    },
  ]) {
    void it(name, async (test) => {
      const folder = await makeConfigFolder(test);
      const result = await folder.loadText(yaml);
      assert.deepEqual(printedFaults(result), []);
      const warned = printedWarnings(result).filter((line) =>
        line.includes("every client that reaches the mirror"),
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
    void it(`are rejected as ${yaml.trim()}`, async (test) => {
      const folder = await makeConfigFolder(test);
      const [fault = ""] = printedFaults(await folder.loadText(yaml));
      assert.ok(fault.includes(seen), fault);
    });
  }
});
