import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createCertificateAuthority } from "../../support/certificate-authority.ts";
import { alternate, type Figure, ratio } from "../figure.ts";
import { blobPath, publishFile } from "../registry-files.ts";
import { warm } from "../rig.ts";
import type { Server } from "../server.ts";
import { runWrk } from "../wrk.ts";

const BLOB_BYTES = 5 * 1024 ** 2;
const CONNECTIONS = 8;
const SECONDS = 2;

export const tlsBlob: Figure = {
  name: "tls",
  title: `TLS: blob of 5 MiB, hit, ${CONNECTIONS} connections`,
  commands: ["wrk", "nginx"],
  async run(rig) {
    const blob = await rig.files.addBlob("tls", BLOB_BYTES);
    const path = blobPath(blob);
    const upstream = await rig.startUpstream();
    const { cert, key } = createCertificateAuthority().issue();
    const folder = await rig.folder("certificates");
    const certificateFile = join(folder, "tls.crt");
    const keyFile = join(folder, "tls.key");
    await writeFile(certificateFile, cert);
    await writeFile(keyFile, key, { mode: 0o600 });
    const root = await rig.folder("root");
    // The first pull uses plain HTTP; both runs share the cache.
    const plain = await rig.startEntrepot({ origin: upstream.origin, root });
    await warm(plain, path);
    await plain.stop();
    const entrepot = await rig.startEntrepot({
      origin: upstream.origin,
      root,
      config: { tls: { certificateFile, keyFile } },
    });
    const pages = await rig.folder("pages");
    publishFile(pages, path, blob);
    const nginx = await rig.startNginx({
      root: pages,
      workers: 1,
      tls: { certificate: certificateFile, key: keyFile },
    });
    const rate = (server: Server) => async () => {
      const report = await runWrk(rig.dir, {
        url: `https://${server.authority}${path}`,
        connections: CONNECTIONS,
        seconds: SECONDS,
      });
      return report.bytesPerSecond;
    };
    const samples = await alternate(rig.rounds, {
      entrepot: rate(entrepot),
      nginx: rate(nginx),
    });
    const unit = "bytes/s";
    const what = "rate";
    return {
      measures: [
        { contestant: "Entrepot", what, unit, samples: samples.entrepot },
        {
          contestant: "nginx, one worker",
          what,
          unit,
          samples: samples.nginx,
        },
      ],
      bars: [
        {
          text: "÷ nginx, one worker",
          value: ratio(samples.entrepot, samples.nginx),
          demand: "at least",
          bar: 0.8,
          aim: 1,
          unit: "×",
        },
      ],
      notes: ["the client, wrk, deciphers on the other core"],
    };
  },
};
