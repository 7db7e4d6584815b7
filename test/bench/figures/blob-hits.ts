import { alternate, type Bar, type Figure, median, ratio } from "../figure.ts";
import { blobPath, publishFile } from "../registry-files.ts";
import { type Rig, warm } from "../rig.ts";
import type { Server } from "../server.ts";

const SECONDS = 2;
/** nginx has two rates: by chance, one of its workers has all connections, or both share them. */
const LEAST_ROUNDS = 5;
const GIB = 1024 ** 3;

interface Shape {
  readonly sizeBytes: number;
  readonly connections: number;
}

async function compare(rig: Rig, { sizeBytes, connections }: Shape) {
  const blob = await rig.files.addBlob("hit", sizeBytes);
  const path = blobPath(blob);
  const upstream = await rig.startUpstream();
  const entrepot = await rig.startEntrepot(upstream);
  const registry = await rig.startRegistryProxy(upstream.origin);
  const root = await rig.folder("pages");
  publishFile(root, path, blob);
  const nginx = await rig.startNginx({ root });
  const cpu: Record<string, number[]> = {};
  const clientCpu: number[] = [];
  const rate = (name: string, server: Server) => {
    const spent: number[] = [];
    cpu[name] = spent;
    return async (): Promise<number> => {
      const before = server.cpuSeconds();
      const report = await rig.drain.read(server, {
        paths: [path],
        connections,
        requestsEach: Infinity,
        durationMs: SECONDS * 1000,
      });
      spent.push(((server.cpuSeconds() - before) * GIB) / report.bytes);
      clientCpu.push((report.cpuSeconds * GIB) / report.bytes);
      return report.bytes / report.seconds;
    };
  };
  for (const server of [entrepot, registry, nginx]) await warm(server, path);
  const samples = await alternate(Math.max(LEAST_ROUNDS, rig.rounds), {
    entrepot: rate("Entrepot", entrepot),
    registry: rate("docker-registry", registry),
    nginx: rate("nginx", nginx),
  });
  return { samples, cpu, clientCpu };
}

function figure(
  name: string,
  title: string,
  shape: Shape,
  demands: {
    readonly nginx: { readonly bar: number; readonly aim: number };
    readonly registry: { readonly bar: number; readonly aim: number };
    readonly cpu?: { readonly bar: number; readonly aim: number };
  },
): Figure {
  return {
    name,
    title,
    commands: ["nginx"],
    async run(rig) {
      const { samples, cpu, clientCpu } = await compare(rig, shape);
      const measure = (contestant: string, rates: readonly number[]) => [
        {
          contestant,
          what: "rate",
          unit: "bytes/s" as const,
          samples: rates,
        },
        {
          contestant,
          what: "processor",
          unit: "CPU s/GiB" as const,
          samples: cpu[contestant] ?? [],
        },
      ];
      const bars: Bar[] = [
        {
          text: "÷ nginx",
          value: ratio(samples.entrepot, samples.nginx),
          demand: "at least",
          ...demands.nginx,
          unit: "×",
        },
        {
          text: "÷ docker-registry",
          value: ratio(samples.entrepot, samples.registry),
          demand: "at least",
          ...demands.registry,
          unit: "×",
        },
      ];
      if (demands.cpu !== undefined) {
        bars.push({
          text: "CPU s/GiB ÷ nginx",
          value: ratio(cpu["Entrepot"] ?? [], cpu["nginx"] ?? []),
          demand: "at most",
          ...demands.cpu,
          unit: "×",
        });
      }
      return {
        measures: [
          ...measure("Entrepot", samples.entrepot),
          ...measure("docker-registry", samples.registry),
          ...measure("nginx", samples.nginx),
        ],
        bars,
        notes: [
          `the client itself takes ${median(clientCpu).toFixed(2)} CPU s/GiB`,
        ],
      };
    },
  };
}

export const blobLarge = figure(
  "blob-256m",
  "Blob of 256 MiB, hit, 4 connections",
  { sizeBytes: 256 * 1024 ** 2, connections: 4 },
  {
    nginx: { bar: 1, aim: 1.2 },
    registry: { bar: 1, aim: 1.2 },
    cpu: { bar: 1.5, aim: 1 },
  },
);

export const blobSmall = figure(
  "blob-5m",
  "Blob of 5 MiB, hit, 8 connections",
  { sizeBytes: 5 * 1024 ** 2, connections: 8 },
  { nginx: { bar: 0.9, aim: 1.1 }, registry: { bar: 1.3, aim: 1.3 } },
);
