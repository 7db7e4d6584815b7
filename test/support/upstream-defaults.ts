import { buildConfig } from "../../src/config/build.ts";
import type { Config, UpstreamConfig } from "../../src/config/config.ts";
import { validateDocument } from "../../src/config/validate.ts";

function buildDefaults(): Config {
  const validated = validateDocument({ upstreams: { "registry.example": {} } });
  if (!validated.isWhole) throw new Error("the defaults are refused");
  return buildConfig(validated.document, {
    storageRoot: "/nowhere",
    files: new Map(),
    operatorToken: undefined,
    resolve: (path) => path,
    env: {},
  });
}

/** The configuration that the loader makes of one upstream, `registry.example`, and of nothing else. */
export const DEFAULT_CONFIG = buildDefaults();

const [upstream] = DEFAULT_CONFIG.upstreams;
if (upstream === undefined) throw new Error("the upstream is missing");
const { name: _name, endpoints: _endpoints, ...settings } = upstream;

/** The settings of an upstream of which only the name is written. */
export const UPSTREAM_DEFAULTS: Omit<UpstreamConfig, "name" | "endpoints"> =
  settings;
