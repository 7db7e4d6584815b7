import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parse as parseYaml } from "yaml";
import { COMPOSE, readDashboard } from "../../support/dashboard.ts";

interface Service {
  readonly image: string;
  readonly build?: string;
  readonly stop_grace_period?: string;
  readonly read_only?: boolean;
  readonly cap_drop: readonly string[];
  readonly security_opt: readonly string[];
  readonly ports: readonly string[];
  readonly volumes: readonly string[];
}

interface Compose {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes: Readonly<Record<string, null>>;
}

const compose = (await readYaml("compose.yaml")) as Compose;
const dockerfile = await readFile(join(COMPOSE, "../../Dockerfile"), "utf8");

void describe("deploy/compose", () => {
  void it("builds the mirror and gives it more time to stop than its drain takes", () => {
    const { mirror } = compose.services;
    assert.equal(mirror?.build, "../..");
    assert.equal(mirror.stop_grace_period, "40s");
    assert.ok(existsSync(join(COMPOSE, mirror.build, "Dockerfile")));
  });

  void it("keeps the cache in a volume at the path that the image declares", () => {
    const [, cache] = /^VOLUME (\S+)$/m.exec(dockerfile) ?? [];
    assert.deepEqual(compose.services["mirror"]?.volumes, [`cache:${cache}`]);
    assert.ok("cache" in compose.volumes);
  });

  void it("drops capabilities and new privileges of every service", () => {
    assert.equal(compose.services["mirror"]?.read_only, true);
    for (const service of Object.values(compose.services)) {
      assert.deepEqual(service.cap_drop, ["ALL"]);
      assert.deepEqual(service.security_opt, ["no-new-privileges:true"]);
    }
  });

  void it("publishes on the loopback only, and the registry API at MIRROR_ADDRESS", () => {
    const published = Object.values(compose.services).flatMap(
      ({ ports }) => ports,
    );
    assert.deepEqual(published, [
      "${MIRROR_ADDRESS:-127.0.0.1}:5000:5000",
      "127.0.0.1:9090:9090",
      "127.0.0.1:3000:3000",
    ]);
  });

  void it("pins the images that it pulls, and mounts only files that exist", () => {
    for (const { image, build, volumes } of Object.values(compose.services)) {
      if (build === undefined) assert.match(image, /:v?\d+\.\d+\.\d+$/);
      for (const volume of volumes) {
        const [source = ""] = volume.split(":");
        assert.ok(
          source.startsWith(".")
            ? existsSync(join(COMPOSE, source))
            : source in compose.volumes,
          volume,
        );
      }
    }
  });

  void it("configures Prometheus to scrape the mirror's operator listener", async () => {
    const [, port] =
      /ENTREPOT_OPERATOR__LISTEN=0\.0\.0\.0:(\d+)/.exec(dockerfile) ?? [];
    const { scrape_configs, rule_files } = (await readYaml(
      "prometheus.yml",
    )) as { scrape_configs: unknown; rule_files: unknown };
    // Relative to the file.
    assert.deepEqual(rule_files, ["rules.yaml"]);
    assert.deepEqual(compose.services["prometheus"]?.volumes.slice(0, 2), [
      "./prometheus.yml:/etc/prometheus/prometheus.yml:ro",
      "../prometheus/rules.yaml:/etc/prometheus/rules.yaml:ro",
    ]);
    assert.deepEqual(scrape_configs, [
      {
        job_name: "entrepot",
        static_configs: [{ targets: [`mirror:${port}`] }],
      },
    ]);
  });

  void it("configures Grafana with the dashboard's data source and folder", async () => {
    const { datasources } = (await readYaml(
      "grafana/provisioning/datasources/prometheus.yaml",
    )) as { datasources: { uid: string; url: string }[] };
    const [source] = datasources;
    assert.equal(source?.url, "http://prometheus:9090");
    for (const panel of (await readDashboard()).panels) {
      assert.equal(panel.datasource.uid, source.uid, panel.title);
    }
    const { providers } = (await readYaml(
      "grafana/provisioning/dashboards/entrepot.yaml",
    )) as { providers: { options: { path: string } }[] };
    const mounts = compose.services["grafana"]?.volumes.map((volume) =>
      volume.split(":"),
    );
    const [dashboards] =
      mounts?.find(([, at]) => at === providers[0]?.options.path) ?? [];
    assert.equal(dashboards, "./grafana/dashboards");
  });
});

async function readYaml(path: string): Promise<unknown> {
  return parseYaml(await readFile(join(COMPOSE, path), "utf8"));
}
