import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import {
  type NotificationConfig,
  Secret,
} from "../../../../src/config/config.ts";
import type { HostedEvent } from "../../../../src/hosted/hosted.ts";
import {
  Notifications,
  type NotificationsOptions,
} from "../../../../src/hosted/notifications/notifications.ts";
import { createPoster } from "../../../../src/hosted/notifications/post-events.ts";
import { digestOf } from "../../../../src/oci/digest.ts";
import { OCI_MANIFEST } from "../../../../src/oci/media-type.ts";
import { createLogger } from "../../../../src/telemetry/logger.ts";
import { createMetrics } from "../../../../src/telemetry/metrics.ts";
import { keyOf, tag } from "../../../contract/metadata-index-contract.ts";
import { type AfterTest, releaseAfter } from "../../../support/after-test.ts";
import { Counter } from "../../../support/barrier.ts";
import { FakeClock } from "../../../support/fake-clock.ts";
import { startHook } from "../../../support/webhook.ts";
import { ManualSchedule } from "../../../support/manual-schedule.ts";

const DIGEST = digestOf(Buffer.from("manifest"));

function event(over: Partial<HostedEvent> = {}): HostedEvent {
  return {
    action: "push",
    key: keyOf("local", "team/app"),
    digest: DIGEST,
    tag: tag("v1"),
    mediaType: OCI_MANIFEST,
    sizeBytes: 8,
    from: undefined,
    sender: {
      user: "ann",
      client: "192.0.2.7",
      userAgent: "docker/29",
      host: "registry.corp:5000",
      method: "PUT",
    },
    ...over,
  };
}

function endpoint(
  port: number,
  over: Partial<NotificationConfig> & { readonly path?: string } = {},
): NotificationConfig {
  return {
    url: new Secret(`http://hook:pass-word@127.0.0.1:${port}/hooks/secret`),
    headers: new Map([["X-Token", new Secret("top-secret")]]),
    events: ["push", "delete"],
    ...over,
  };
}

function setUp(
  test: AfterTest,
  endpoints: readonly NotificationConfig[],
  over: Partial<NotificationsOptions> = {},
) {
  const lines: string[] = [];
  const schedule = new ManualSchedule();
  const metrics = createMetrics("0");
  const scheduled = new Counter();
  const notifications = new Notifications({
    endpoints,
    nameOf: ({ upstream, repository }) => `${upstream}/${repository}`,
    scheme: "https",
    source: { addr: "host:5000", instanceID: "1234" },
    clock: new FakeClock(),
    log: createLogger(
      { level: "debug" },
      { write: (line) => lines.push(line) },
    ),
    metrics,
    schedule: (run, delayMs) => {
      const cancel = schedule.start(run, delayMs);
      scheduled.notify();
      return cancel;
    },
    ...over,
  });
  releaseAfter(test, () => notifications.stop());
  const counted = async (outcome: string): Promise<number> => {
    const { values } = await metrics.notifications.get();
    return values.find(({ labels }) => labels.outcome === outcome)?.value ?? 0;
  };
  return {
    notifications,
    lines,
    counted,
    schedule,
    untilPaused: () =>
      scheduled.until(
        () => schedule.delaysMs.length > 0,
        () => "no attempt failed",
      ),
  };
}

void describe("notifications", () => {
  void it("have the envelope, the media type and the secret headers of the endpoint", async (test) => {
    const hook = await startHook(test);
    const { notifications } = setUp(test, [endpoint(hook.port)]);
    notifications.sink(event());
    await hook.until(1);
    const [request] = hook.received;
    assert.equal(
      request?.headers["content-type"],
      "application/vnd.docker.distribution.events.v2+json",
    );
    assert.equal(request.headers["x-token"], "top-secret");
    assert.equal(
      request.headers.authorization,
      `Basic ${Buffer.from("hook:pass-word").toString("base64")}`,
    );
    assert.equal(request.path, "/hooks/secret");
    const [sent] = request.events;
    assert.deepEqual(
      { ...sent, id: "", request: { ...Object(sent).request, id: "" } },
      {
        id: "",
        timestamp: "2026-01-01T00:00:00.000Z",
        action: "push",
        target: {
          mediaType: OCI_MANIFEST,
          size: 8,
          digest: DIGEST,
          length: 8,
          repository: "local/team/app",
          url: `https://registry.corp:5000/v2/local/team/app/manifests/${DIGEST}`,
          tag: "v1",
        },
        request: {
          id: "",
          addr: "192.0.2.7",
          host: "registry.corp:5000",
          method: "PUT",
          useragent: "docker/29",
        },
        actor: { name: "ann" },
        source: { addr: "host:5000", instanceID: "1234" },
      },
    );
  });

  void it("name the repository that a blob was mounted from, and the blob's URL", async (test) => {
    const hook = await startHook(test);
    const { notifications } = setUp(test, [
      endpoint(hook.port, { events: ["mount"] }),
    ]);
    notifications.sink(
      event({
        action: "mount",
        tag: undefined,
        mediaType: undefined,
        from: keyOf("docker.io", "library/base"),
      }),
    );
    await hook.until(1);
    const target = hook.received[0]?.events[0]?.target;
    assert.equal(target?.["fromRepository"], "docker.io/library/base");
    assert.equal(
      target["url"],
      `https://registry.corp:5000/v2/local/team/app/blobs/${DIGEST}`,
    );
  });

  void it("do not use a host of a client that is not a host", async (test) => {
    const hook = await startHook(test);
    const { notifications } = setUp(test, [endpoint(hook.port)]);
    notifications.sink(
      event({
        sender: {
          ...event().sender,
          host: "evil/path?x=",
          userAgent: "x".repeat(9_000),
        },
      }),
    );
    await hook.until(1);
    const sent = hook.received[0]?.events[0];
    assert.equal(sent?.target["url"], undefined);
    assert.ok(JSON.stringify(sent).length < 1_500);
  });

  void it("reach only the endpoints that receive their kind", async (test) => {
    const [all, deletes] = [await startHook(test), await startHook(test)];
    const { notifications } = setUp(test, [
      endpoint(all.port, { events: ["push", "pull", "delete", "mount"] }),
      endpoint(deletes.port, { events: ["delete"] }),
    ]);
    for (const action of ["push", "pull", "mount", "delete"] as const)
      notifications.sink(event({ action }));
    await notifications.stop();
    const actions = (hook: typeof all) =>
      hook.received.flatMap(({ events }) => events.map((one) => one.action));
    assert.deepEqual(actions(all), ["push", "pull", "mount", "delete"]);
    assert.deepEqual(actions(deletes), ["delete"]);
  });

  void it("are sent again with the same id and in order after a failure", async (test) => {
    const hook = await startHook(test, [503]);
    const { notifications, schedule, untilPaused, counted, lines } = setUp(
      test,
      [endpoint(hook.port)],
    );
    notifications.sink(event({ tag: tag("first") }));
    await untilPaused();
    notifications.sink(event({ tag: tag("second") }));
    const [delayMs = 0] = schedule.delaysMs;
    assert.ok(delayMs >= 750 && delayMs <= 1_000);
    schedule.runNext();
    await hook.until(2);
    const [failed, delivered] = hook.received;
    assert.equal(delivered?.events[0]?.id, failed?.events[0]?.id);
    assert.deepEqual(
      delivered?.events.map(({ target }) => target["tag"]),
      ["first", "second"],
    );
    await notifications.stop();
    assert.equal(await counted("retried"), 1);
    assert.equal(await counted("delivered"), 2);
    assert.equal(lines.length, 2);
    assert.match(lines[0] ?? "", /does not accept events/);
    assert.match(lines[1] ?? "", /accepts events again/);
    assert.doesNotMatch(lines.join(""), /pass-word|top-secret|hooks/);
  });

  void it("wait longer after each failure, and log the first one only", async (test) => {
    const hook = await startHook(test, [500, 500, 500, 429]);
    const { notifications, schedule, untilPaused, lines } = setUp(test, [
      endpoint(hook.port),
    ]);
    notifications.sink(event());
    const delays: number[] = [];
    for (let attempt = 1; attempt <= 4; attempt += 1) {
      await untilPaused();
      delays.push(schedule.delaysMs[0] ?? 0);
      schedule.runNext();
    }
    await hook.until(5);
    for (const [at, delayMs] of delays.entries()) {
      assert.ok(delayMs <= 1_000 * 2 ** at && delayMs >= 750 * 2 ** at);
    }
    await notifications.stop();
    assert.equal(lines.length, 2);
  });

  void it("do not follow a redirect, and give one refused event up after five attempts", async (test) => {
    const hook = await startHook(test, [307, 404, 401, 302, 410]);
    const { notifications, schedule, untilPaused, counted } = setUp(test, [
      endpoint(hook.port),
    ]);
    notifications.sink(event({ tag: tag("refused") }));
    await untilPaused();
    notifications.sink(event({ tag: tag("accepted") }));
    for (let attempt = 1; attempt <= 4; attempt += 1) {
      schedule.runNext();
      await hook.until(attempt + 1);
      await untilPaused();
    }
    schedule.runNext();
    await hook.until(6);
    assert.deepEqual(
      hook.received.map(({ path, events }) => [
        path,
        ...events.map(({ target }) => target["tag"]),
      ]),
      [
        ...Array.from({ length: 5 }, () => ["/hooks/secret", "refused"]),
        ["/hooks/secret", "accepted"],
      ],
    );
    await notifications.stop();
    assert.equal(await counted("rejected"), 1);
    assert.equal(await counted("delivered"), 1);
  });

  void it("are bounded in number; one that hangs costs no other endpoint an event", async (test) => {
    const [hung, good] = [await startHook(test, [0]), await startHook(test)];
    const { notifications, counted, lines } = setUp(
      test,
      [endpoint(hung.port), endpoint(good.port)],
      { maxWaiting: 20 },
    );
    notifications.sink(event());
    await Promise.all([hung.until(1), good.until(1)]);
    for (let number = 0; number < 100; number += 1) {
      notifications.sink(event({ tag: tag(`t${number}`) }));
      const sent = number + 2;
      await good.until(sent);
    }
    assert.ok((await counted("dropped")) >= 80);
    assert.equal(
      good.received.reduce((sum, { events }) => sum + events.length, 0),
      101,
    );
    assert.equal(
      lines.filter((line) => line.includes("too many notifications wait"))
        .length,
      1,
    );
  });

  void it("end an attempt without an answer, and try again", async (test) => {
    const hook = await startHook(test, [0]);
    const { notifications, schedule, untilPaused, counted } = setUp(
      test,
      [endpoint(hook.port)],
      { poster: createPoster(50) },
    );
    notifications.sink(event());
    await untilPaused();
    schedule.runNext();
    await hook.until(2);
    await notifications.stop();
    assert.equal(await counted("delivered"), 1);
  });

  void it("end an attempt without an answer after five seconds", async (test) => {
    const hook = await startHook(test, [0]);
    const poster = createPoster();
    releaseAfter(test, () => poster.close());
    test.mock.timers.enable({ apis: ["setTimeout"] });
    const { signal } = new AbortController();
    let hasEnded = false;
    const attempt = poster
      .post(endpoint(hook.port), '{"events":[]}', signal)
      .finally(() => {
        hasEnded = true;
      });
    const rejected = assert.rejects(attempt, { name: "TimeoutError" });
    await hook.until(1);
    test.mock.timers.tick(4_999);
    for (let turn = 0; turn < 5; turn += 1) await setImmediate();
    assert.equal(hasEnded, false);
    test.mock.timers.tick(1);
    for (let turn = 0; turn < 5; turn += 1) await setImmediate();
    assert.equal(hasEnded, true);
    await rejected;
  });

  void it("retry an endpoint that refuses connections", async (test) => {
    const { notifications, untilPaused, counted, lines } = setUp(test, [
      endpoint(1),
    ]);
    notifications.sink(event());
    await untilPaused();
    await notifications.stop();
    assert.equal(await counted("dropped"), 1);
    assert.match(lines[0] ?? "", /"code":"ECONNREFUSED"/);
  });

  void it("are sent before a stop, which waits for no pause", async (test) => {
    const hook = await startHook(test, [500]);
    const { notifications, untilPaused, counted } = setUp(test, [
      endpoint(hook.port),
    ]);
    notifications.sink(event());
    await untilPaused();
    await notifications.stop();
    assert.equal(await counted("delivered"), 1);
    notifications.sink(event());
    assert.equal(hook.received.length, 2);
  });

  void it("keep what waits over a reload, and drop what waits for a removed endpoint", async (test) => {
    const [kept, removed] = [
      await startHook(test, [500]),
      await startHook(test, [500]),
    ];
    const { notifications, counted } = setUp(test, [
      endpoint(kept.port),
      endpoint(removed.port),
    ]);
    notifications.sink(event());
    await Promise.all([kept.until(1), removed.until(1)]);
    notifications.replace([
      endpoint(kept.port, {
        headers: new Map([["x-token", new Secret("changed")]]),
        events: ["pull"],
      }),
    ]);
    notifications.sink(event({ action: "pull", tag: tag("later") }));
    await notifications.stop();
    const sent = kept.received.flatMap(({ events }) => events);
    assert.deepEqual(
      sent.map(({ action }) => action),
      ["push", "push", "pull"],
    );
    assert.equal(kept.received.at(-1)?.headers["x-token"], "changed");
    assert.equal(await counted("dropped"), 1);
    assert.equal(removed.received.length, 1);
  });
});
