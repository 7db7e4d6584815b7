import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { describe, it } from "node:test";
import {
  chooseAddress,
  isRefused,
  registryHost,
} from "../../../../../src/cli/setup/clients/client-address.ts";
import { parseListenAddress } from "../../../../../src/config/schema/forms.ts";
import { createCertificateAuthority } from "../../../../support/certificate-authority.ts";

const TLS = { certificateFile: "/c", keyFile: "/k" };

function choose(
  listen: readonly string[],
  options: {
    readonly address?: string;
    readonly names?: readonly string[];
  } = {},
) {
  const { address, names } = options;
  const certificate =
    names === undefined
      ? undefined
      : new X509Certificate(
          createCertificateAuthority().issue({ hosts: names }).cert,
        );
  const config = {
    listen: listen.map(
      (one) => parseListenAddress(one) ?? { host: "", port: 0 },
    ),
    ...(certificate === undefined ? {} : { tls: TLS }),
  };
  return chooseAddress(config, { address, hostname: "box" }, certificate);
}

void describe("the mirror's address for its clients", () => {
  const cases: readonly {
    readonly name: string;
    readonly listen: readonly string[];
    readonly address?: string;
    readonly names?: readonly string[];
    readonly want: string;
    readonly note?: RegExp;
  }[] = [
    {
      name: "is that of the listener",
      listen: ["192.0.2.7:5000"],
      want: "http://192.0.2.7:5000",
    },
    {
      name: "is a listener that other machines reach, if there is one",
      listen: ["127.0.0.1:5000", "192.0.2.7:6000"],
      want: "http://192.0.2.7:6000",
    },
    {
      name: "is the loopback if there is no other, with a note",
      listen: ["127.0.0.1:5000"],
      want: "http://127.0.0.1:5000",
      note: /only engines on this machine/,
    },
    {
      name: "is the machine's name if the listener names no host",
      listen: ["[::]:5000"],
      want: "http://box:5000",
      note: /listen names no host, so box is used/,
    },
    {
      name: "is the first name of the certificate that is not a pattern",
      listen: ["0.0.0.0:5000"],
      names: ["*.corp", "mirror.corp"],
      want: "https://mirror.corp:5000",
      note: /mirror\.corp is used/,
    },
    {
      name: "has brackets around an address of IPv6",
      listen: ["[fd00::7]:5000"],
      want: "http://[fd00::7]:5000",
    },
    {
      name: "is the one of --address, with the mirror's scheme",
      listen: ["0.0.0.0:5000"],
      address: "Mirror.internal:443",
      names: ["mirror.internal"],
      want: "https://mirror.internal:443",
    },
    {
      name: "may be a URL without a port",
      listen: ["127.0.0.1:5000"],
      address: "https://mirror.corp/",
      want: "https://mirror.corp",
    },
  ];
  for (const { name, listen, want, note, ...options } of cases) {
    void it(name, () => {
      const chosen = choose(listen, options);
      assert.ok(!isRefused(chosen), JSON.stringify(chosen));
      assert.equal(`${chosen.scheme}://${registryHost(chosen)}`, want);
      if (note === undefined) assert.deepEqual(chosen.notes, []);
      else assert.match(chosen.notes.join("\n"), note);
    });
  }

  for (const address of [
    "",
    "mirror",
    "mirror.internal",
    "mirror:0",
    "mirror:65536",
    "mirror:5000/path",
    "https://mirror",
    "ftp://mirror.corp",
    "user@mirror:5000",
    "[::1:5000",
    "[1.2]:5000",
    "300.1.1.1:5000",
    'mirror"\n:5000',
    "../x:5000",
  ]) {
    void it(`is not ${JSON.stringify(address)}`, () => {
      const chosen = choose(["0.0.0.0:5000"], { address });
      assert.ok(isRefused(chosen));
      assert.match(chosen.flaw, /^--address: got ".*"; expected HOST:PORT/s);
    });
  }

  void it("is needed if the listener takes any free port", () => {
    const chosen = choose(["127.0.0.1:0"]);
    assert.ok(isRefused(chosen));
    assert.match(chosen.flaw, /got port 0.+--address/);
  });
});
