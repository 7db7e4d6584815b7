import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "node:test";
import { describeConfig, formatConfig } from "../../../src/config/describe.ts";
import {
  makeConfigFolder,
  printedFaults,
} from "../../support/config-folder.ts";

void describe("warm lists of the configuration", () => {
  void it("are empty by default, and have defaults of their own", async (test) => {
    const folder = await makeConfigFolder(test);
    const none = await folder.loadText("");
    assert.ok(none.ok);
    assert.deepEqual(none.config.warm, []);
    const one = await folder.loadText(
      'warm: [{schedule: "0 2 * * *", list: lists/images.txt}]',
    );
    assert.ok(one.ok);
    assert.deepEqual(one.config.warm, [
      {
        schedule: "0 2 * * *",
        // Relative to the folder of the file; it need not exist until a run.
        list: join(folder.path, "lists/images.txt"),
        platforms: [],
        withReferrers: false,
        pin: false,
      },
    ]);
  });

  for (const [entry, fault] of [
    [
      "list: a",
      "warm[0].schedule: got no value; expected minute, hour, day of the month, month and day of the week, such as 0 2 * * *",
    ],
    [
      'schedule: "0 2 * * *"',
      "warm[0].list: got no value; expected the path of a file",
    ],
    [
      'schedule: "0 25 * * *", list: a',
      'warm[0].schedule: got "0 25 * * *"; expected a cron expression of five fields, such as 0 3 * * *',
    ],
    [
      'schedule: "0 0 30 2 *", list: a',
      'warm[0].schedule: got "0 0 30 2 *"; expected a schedule with a date that exists',
    ],
    [
      'schedule: "@daily", list: a',
      'warm[0].schedule: got "@daily"; expected minute, hour, day of the month, month and day of the week, such as 0 2 * * *',
    ],
    [
      'schedule: "0 2 * * *", list: a, platforms: [arm64]',
      'warm[0].platforms[0]: got "arm64"; expected OS/ARCH or OS/ARCH/VARIANT, such as linux/arm64',
    ],
    [
      'schedule: "0 2 * * *", list: a, pinned: true',
      "warm[0].pinned: got an unknown key; expected one of schedule, list, platforms, withReferrers, pin",
    ],
  ] as const) {
    void it(`are rejected by name: {${entry}}`, async (test) => {
      const folder = await makeConfigFolder(test);
      const result = await folder.loadText(`warm: [{${entry}}]`);
      assert.deepEqual(
        printedFaults(result).map((line) => line.slice("c.yaml:1: ".length)),
        [fault],
      );
    });
  }

  void it("are shown by check-config as they can be loaded again", async (test) => {
    const folder = await makeConfigFolder(test);
    const text =
      'warm: [{schedule: "0 2 * * *", list: images.txt, platforms: [linux/arm64], withReferrers: true, pin: true}]';
    const result = await folder.loadText(text);
    assert.ok(result.ok);
    const again = await folder.loadText(
      await formatConfig(describeConfig(result.config)),
    );
    assert.ok(again.ok);
    assert.deepEqual(again.config.warm, result.config.warm);
  });
});
