import { createHash } from "node:crypto";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { cachedFolder, goInstall } from "../cached-tool.ts";
import { runCommand } from "../run-command.ts";
import type { Programs } from "./programs.ts";

/** Packages of Debian's unstable release; their dependencies are extracted too. */
const PACKAGES = [
  "buildah",
  "containerd",
  "cosign",
  "crane",
  "docker-cli",
  "docker.io",
  "oras",
  "podman",
  "runc",
  "skopeo",
] as const;

/** Clients that Debian does not have. */
const GO_PROGRAMS = [
  "github.com/regclient/regclient/cmd/regctl@v0.11.7",
  "helm.sh/helm/v4/cmd/helm@v4.3.2",
] as const;

/** Changes with the way in which the folder is made. */
const LAYOUT = 1;

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** Some 200 MB are downloaded. */
const DOWNLOAD_TIMEOUT_MS = 10 * 60_000;

/** Programs that are newer than those of Debian 12. */
export interface NewerClients extends Programs {
  /** Those of Go modules, which run without the libraries of the packages. */
  readonly helm: string;
  readonly regctl: string;
}

/**
 * Returns dockerd 28, Podman 5 and other clients of today, which no Debian 12 has. They are fetched
 * once, and kept in the folder of the user's caches.
 *
 * The packages are extracted, not installed: each program runs in a mount namespace of its own, in
 * which their `usr` replaces that of the machine. All other folders are those of the machine.
 *
 * @throws Error if a package or a module is not available
 */
export async function fetchNewerClients(): Promise<NewerClients> {
  const content = JSON.stringify([LAYOUT, PACKAGES, GO_PROGRAMS]);
  const hash = createHash("sha256").update(content).digest("hex");
  const folder = await cachedFolder(
    `clients-${hash.slice(0, 12)}`,
    async (making) => {
      await extractPackages(making);
      for (const program of GO_PROGRAMS) {
        await goInstall(program, join(making, "bin"));
      }
    },
  );
  return {
    name: "newer",
    prefix: [
      "unshare",
      "--mount",
      "--propagation=private",
      "sh",
      "-c",
      'mount --bind "$0" /usr && exec "$@"',
      join(folder, "root/usr"),
    ],
    helm: join(folder, "bin/helm"),
    regctl: join(folder, "bin/regctl"),
  };
}

/** Extracts the packages and their dependencies into `root` of a folder. */
async function extractPackages(folder: string): Promise<void> {
  const apt = join(folder, "apt");
  await mkdir(join(apt, "etc/apt/apt.conf.d"), { recursive: true });
  await mkdir(join(apt, "etc/apt/preferences.d"));
  await mkdir(join(apt, "var/lib/apt/lists/partial"), { recursive: true });
  await mkdir(join(apt, "var/cache/apt/archives/partial"), { recursive: true });
  const status = join(apt, "status");
  // Nothing is installed: apt adds every dependency.
  await writeFile(status, "");
  await writeFile(
    join(apt, "etc/apt/sources.list"),
    `deb [signed-by=${KEYRING}] ${await archive()} sid main\n`,
  );
  const configuration = join(apt, "apt.conf");
  await writeFile(
    configuration,
    [
      `Dir "${apt}";`,
      `Dir::State::status "${status}";`,
      'APT::Install-Recommends "false";',
      'APT::Sandbox::User "root";',
      'Acquire::Languages "none";',
      'Acquire::Retries "3";',
      // A copy of the archive may be older; the signature is verified all the same.
      'Acquire::Check-Valid-Until "false";',
      "",
    ].join("\n"),
  );
  const options = {
    env: { APT_CONFIG: configuration },
    timeoutMs: DOWNLOAD_TIMEOUT_MS,
  };
  await runCommand("apt-get", ["update", "--quiet"], options);
  await runCommand(
    "apt-get",
    ["install", "--quiet", "--yes", "--download-only", ...PACKAGES],
    options,
  );
  const archives = join(apt, "var/cache/apt/archives");
  for (const name of await readdir(archives)) {
    if (!name.endsWith(".deb")) continue;
    await runCommand("dpkg", ["-x", join(archives, name), `${folder}/root`]);
  }
  await rm(apt, { recursive: true });
}

/** Returns the address of the Debian archive from which the machine installs its own packages. */
async function archive(): Promise<string> {
  const { stdout: release } = await runCommand("sh", [
    "-c",
    '. /etc/os-release && echo "$VERSION_CODENAME"',
  ]);
  const { stdout } = await runCommand("apt-get", [
    "indextargets",
    "--format=$(RELEASE) $(REPO_URI)",
    "Identifier: Packages",
  ]);
  const sources = stdout.split("\n").map((line) => line.split(" "));
  const own = sources.find(([name]) => name === release.trim());
  if (own?.[1] === undefined) {
    throw new Error(`got no source of ${release.trim()}; expected Debian`);
  }
  return own[1];
}

if (import.meta.main) await fetchNewerClients();
