import type { CheckedFiles } from "./files/access-files.ts";
import { buildAccess, buildServerTls } from "./build-access.ts";
import { buildConfig } from "./build.ts";
import { checkDocument, findRisks } from "./checks.ts";
import {
  type ConfigFile,
  type ConfigFileOptions,
  readConfigFile,
} from "./config-file.ts";
import type { Config, Secret } from "./config.ts";
import {
  type ConfigDocument,
  credentialsOf,
  type Pruned,
  type UpstreamDocument,
  upstreamsOf,
} from "./document.ts";
import {
  type EnvironmentValue,
  readEnvironment,
  UPSTREAMS_VARIABLE,
} from "./environment.ts";
import {
  type ConfigFault,
  formatKeyPath,
  type KeyPath,
  type PlacedFault,
} from "./fault.ts";
import {
  type NotificationFiles,
  readNotificationFiles,
} from "./files/notification-files.ts";
import { readOperatorToken } from "./files/operator-token.ts";
import { resolvePath } from "./files/files.ts";
import { parseProxy } from "./schema/forms.ts";
import { IMPLICIT_HOSTED, mergeSources } from "./merge-sources.ts";
import { findQuantities, type WrittenQuantity } from "./quantities.ts";
import { checkSchedules } from "./schedules.ts";
import { schemaAt, type SchemaNode } from "./schema/schema-node.ts";
import { CONFIG_SCHEMA } from "./schema/schema.ts";
import { resolveAs } from "./schema/settings.ts";
import { findSecretFlaw } from "./files/secret-file.ts";
import {
  readUpstreamFiles,
  type UpstreamFiles,
} from "./files/upstream-files.ts";
import {
  readUpstreamsVariable,
  type UpstreamsVariable,
} from "./upstreams-variable.ts";
import { validateDocument } from "./validate.ts";
import { lineOf } from "./yaml-source.ts";

export interface LoadOptions extends ConfigFileOptions {
  /** From the command line; take precedence over file and environment. */
  readonly overrides?: { readonly offline?: boolean | undefined };
  /** In place of {@link CONFIG_SCHEMA}. */
  readonly schema?: typeof CONFIG_SCHEMA;
}

export type LoadResult =
  | {
      readonly ok: true;
      /** Frozen to its leaves. */
      readonly config: Config;
      /** Logged at every start. */
      readonly warnings: readonly ConfigFault[];
      readonly sources: ConfigSources;
      /** Sizes and durations as the operator wrote them. */
      readonly quantities: readonly WrittenQuantity[];
    }
  | {
      readonly ok: false;
      /** All faults, in the order of the file. */
      readonly faults: readonly ConfigFault[];
      readonly warnings: readonly ConfigFault[];
      /** As far as they are known: a change to one of them may repair the configuration. */
      readonly sources: ConfigSources;
    };

/** The sources that the configuration was read from. */
export interface ConfigSources {
  /** Absolute; undefined if there was none. */
  readonly configFile: string | undefined;
  /** Absolute paths of the secret and certificate files. */
  readonly files: readonly string[];
  /** Names of the environment variables. */
  readonly variables: readonly string[];
}

/** Reads file, environment and secret files. Bad input is a result, never an exception. */
export async function loadConfig(options: LoadOptions): Promise<LoadResult> {
  const { schema = CONFIG_SCHEMA } = options;
  const file = await readConfigFile(options);
  const environment = readEnvironment(options.env, schema);
  const fromEnvironment = environment.values.map((value) =>
    fromCurrentFolder(value, schema, options),
  );
  const upstreamsVariable = await readUpstreamsVariable(options);
  const written = mergeSources(
    upstreamsVariable === undefined || upstreamsVariable.faults.length > 0
      ? file.value
      : { ...file.value, upstreams: upstreamsVariable.value },
    fromEnvironment,
    options.overrides,
  );
  const validated = validateDocument(written.document, schema);
  const document: Pruned<ConfigDocument> = validated.document;
  const faults: PlacedFault[] = validated.isWhole ? [] : [...validated.faults];
  const rejected = new Set(faults.map(({ path }) => JSON.stringify(path)));
  faults.push(
    ...checkDocument(document, (path) => rejected.has(JSON.stringify(path))),
    ...(await checkSchedules(document)),
  );
  const warnings = findRisks(document);
  if (written.isLocalOmitted) warnings.push(OMITTED);
  const resolve = (path: string): string =>
    resolvePath(path, file.folder, options.home);
  const read = await readNamedFiles(document, resolve, options.env);
  faults.push(...read.faults);
  warnings.push(...read.warnings);
  faults.push(
    ...checkOwnSecrets(document, file, upstreamsVariable !== undefined),
  );

  const locate = (fault: PlacedFault): ConfigFault =>
    locateFault(fault, file, environment.values, upstreamsVariable);
  const locatedWarnings = [...warnings.map(locate), ...environment.warnings];
  const locatedFaults = [
    ...file.faults,
    ...(upstreamsVariable?.faults ?? []),
    ...faults.map(locate),
    ...findProcessFaults(options.env),
  ];
  const sources: ConfigSources = {
    configFile: file.path,
    files: read.paths,
    variables: variablesOf(environment.values, upstreamsVariable),
  };
  if (!validated.isWhole || locatedFaults.length > 0) {
    return {
      ok: false,
      faults: sortByPlace(locatedFaults),
      warnings: sortByPlace(locatedWarnings),
      sources,
    };
  }
  return {
    ok: true,
    config: buildConfig(validated.document, {
      storageRoot: storageRootOf(
        validated.document,
        file,
        environment.values,
        options,
      ),
      files: read.upstreams,
      operatorToken: read.operatorToken,
      notifications: read.notifications,
      resolve,
      env: options.env,
      schema: options.schema,
    }),
    warnings: sortByPlace(locatedWarnings),
    sources,
    quantities: findQuantities(validated.document, schema),
  };
}

function variablesOf(
  values: readonly EnvironmentValue[],
  upstreams: UpstreamsVariable | undefined,
): string[] {
  const names = values.map(({ name }) => name);
  return upstreams === undefined ? names : [...names, UPSTREAMS_VARIABLE];
}

/** The warning that the implicit hosted registry is omitted because an upstream has its name. */
const OMITTED: PlacedFault = {
  path: ["hosted"],
  seen: `no value while an upstream has the name ${IMPLICIT_HOSTED}, so that nothing is hosted`,
  expected: "hosted with a registry of another name, or hosted: {}",
};

/** The content of the files that a document names. */
interface NamedFiles {
  readonly upstreams: ReadonlyMap<string, UpstreamFiles>;
  readonly operatorToken: Secret | undefined;
  readonly notifications: NotificationFiles;
  /** Absolute. */
  readonly paths: readonly string[];
  readonly faults: readonly PlacedFault[];
  readonly warnings: readonly PlacedFault[];
}

async function readNamedFiles(
  document: Pruned<ConfigDocument>,
  resolve: (path: string) => string,
  env: LoadOptions["env"],
): Promise<NamedFiles> {
  const upstreams = new Map<string, UpstreamFiles>();
  for (const [name, upstream] of upstreamsOf(document)) {
    const files = readUpstreamFiles(name, upstream, resolve, env["PATH"]);
    upstreams.set(name, await files);
  }
  const access = await checkAccessFiles(document, resolve);
  const { tokenFile } = document.operator ?? {};
  const operator = await readOperatorToken(tokenFile, resolve);
  const notifications = await readNotificationFiles(document, resolve);
  const all = [...upstreams.values(), access, operator, notifications];
  return {
    upstreams,
    operatorToken: operator.token,
    notifications,
    paths: all.flatMap(({ paths }) => paths),
    faults: all.flatMap(({ faults }) => faults),
    warnings: access.warnings,
  };
}

/** Resolves `storage.root`: only a root that the file sets is relative to the file's folder. */
function storageRootOf(
  { storage }: ConfigDocument,
  file: ConfigFile,
  variables: readonly EnvironmentValue[],
  { cwd, home }: LoadOptions,
): string {
  const isFromFile =
    file.lines?.children.get("storage")?.children.has("root") === true &&
    !variables.some(({ path }) => path.join(".") === "storage.root");
  return resolvePath(storage.root, isFromFile ? file.folder : cwd, home);
}

/** Reads the files of `tls` and `access`. Loads the readers only if there are any. */
async function checkAccessFiles(
  document: Pruned<ConfigDocument>,
  resolve: (path: string) => string,
): Promise<CheckedFiles> {
  const tls = buildServerTls(document.tls, resolve);
  const access = buildAccess(document.access, resolve);
  if (tls === undefined && access === undefined) {
    return { faults: [], warnings: [], paths: [] };
  }
  const files = await import("./files/access-files.ts");
  return files.checkAccessFiles(tls, access);
}

/** Resolves a relative path of the environment against the current folder, not the file's. */
function fromCurrentFolder(
  variable: EnvironmentValue,
  schema: SchemaNode,
  { cwd, home }: LoadOptions,
): EnvironmentValue {
  const { path, value } = variable;
  const resolve = (text: string): string => resolvePath(text, cwd, home);
  const kind = schemaAt(schema, path)?.["x-path"];
  return typeof value === "string" && kind !== undefined
    ? { ...variable, value: resolveAs(kind, value, resolve) }
    : variable;
}

/** Checks the mode of the configuration file, which is a secret file if it holds a password. */
function checkOwnSecrets(
  document: Pruned<ConfigDocument>,
  file: ConfigFile,
  areUpstreamsElsewhere: boolean,
): PlacedFault[] {
  if (!file.read?.isRead || file.path === undefined) return [];
  const upstreams = areUpstreamsElsewhere ? [] : upstreamsOf(document);
  const path = [
    ...upstreams.flatMap(([name, upstream]) => ownSecretsOf(name, upstream)),
    ...ownSecretsOfWebhooks(document),
  ].at(0);
  if (path === undefined) return [];
  const instead = ", or move the secret to a file of its own";
  const flaw = findSecretFlaw(file.read, file.path, instead);
  return flaw === undefined ? [] : [{ path, ...flaw }];
}

/** Finds the keys of an upstream that hold a secret themselves. */
function ownSecretsOf(
  name: string,
  upstream: Pruned<UpstreamDocument>,
): KeyPath[] {
  const passwords = credentialsOf(name, upstream)
    .filter(({ credential }) => credential.password !== undefined)
    .map(({ path }) => [...path, "password"]);
  const proxy = URL.parse(parseProxy(upstream.proxy ?? "") ?? "");
  return proxy?.password
    ? [...passwords, ["upstreams", name, "proxy"]]
    : passwords;
}

/** Finds webhooks whose URL contains a password or a query, which may be a token. */
function ownSecretsOfWebhooks({
  notifications = [],
}: Pruned<ConfigDocument>): KeyPath[] {
  return [...notifications.entries()].flatMap(([index, notification]) => {
    const url = URL.parse(notification?.url ?? "");
    return url?.password || url?.search
      ? [["notifications", index, "url"]]
      : [];
  });
}

/** Rejects the Node switch that disables the certificate check of every upstream. */
function findProcessFaults(env: LoadOptions["env"]): ConfigFault[] {
  const name = "NODE_TLS_REJECT_UNAUTHORIZED";
  if (env[name] !== "0") return [];
  return [
    {
      file: name,
      line: undefined,
      path: "",
      seen: "0, which disables the certificate check of every upstream",
      expected: "an unset variable",
      fix: "set tls.caFile or tls.insecureSkipVerify of one upstream",
    },
  ];
}

function locateFault(
  fault: PlacedFault,
  file: ConfigFile,
  variables: readonly EnvironmentValue[],
  upstreams: UpstreamsVariable | undefined,
): ConfigFault {
  const path = formatKeyPath(fault.path);
  const { seen, expected, fix } = fault;
  const flaw = { seen, expected, fix };
  if (upstreams !== undefined && fault.path[0] === "upstreams") {
    const line = upstreams.lineOf(fault.path.slice(1));
    return { ...flaw, file: UPSTREAMS_VARIABLE, line, path };
  }
  const variable = variables.find(
    (candidate) => formatKeyPath(candidate.path) === path,
  );
  if (variable !== undefined) {
    return { ...flaw, file: variable.name, line: undefined, path };
  }
  const line =
    file.lines === undefined ? undefined : lineOf(file.lines, fault.path);
  return { ...flaw, file: file.name ?? "default", line, path };
}

/** Sorts the faults of the file by line; the others follow in their order. */
function sortByPlace(faults: readonly ConfigFault[]): ConfigFault[] {
  return faults.toSorted(
    (left, right) => (left.line ?? Infinity) - (right.line ?? Infinity) || 0,
  );
}
