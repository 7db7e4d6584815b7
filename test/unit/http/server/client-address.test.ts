import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { describe, it } from "node:test";
import { createClientAddress } from "../../../../src/http/server/client-address.ts";

const of = createClientAddress(["10.0.0.0/8", "fd00::/64"]);

function request(remoteAddress: string, forwarded?: string): IncomingMessage {
  const headers =
    forwarded === undefined ? {} : { "x-forwarded-for": forwarded };
  return { socket: { remoteAddress }, headers } as unknown as IncomingMessage;
}

void describe("the client's address", () => {
  for (const { name, from, forwarded, want } of [
    { name: "is the connection's own", from: "192.0.2.1", want: "192.0.2.1" },
    {
      name: "is not the X-Forwarded-For of an untrusted peer",
      from: "192.0.2.1",
      forwarded: "127.0.0.1",
      want: "192.0.2.1",
    },
    {
      name: "is the X-Forwarded-For of a trusted proxy",
      from: "10.0.0.1",
      forwarded: "192.0.2.7",
      want: "192.0.2.7",
    },
    {
      name: "is the last X-Forwarded-For entry that is not a trusted proxy",
      from: "10.0.0.1",
      forwarded: "127.0.0.1, 192.0.2.7, 10.2.2.2",
      want: "192.0.2.7",
    },
    {
      name: "is the proxy's if it sends none",
      from: "10.0.0.1",
      want: "10.0.0.1",
    },
    {
      name: "is the proxy's if it sends no address",
      from: "10.0.0.1",
      forwarded: "unknown",
      want: "10.0.0.1",
    },
    {
      name: "is IPv4 on an IPv6 socket",
      from: "::ffff:10.0.0.1",
      forwarded: "::ffff:192.0.2.7",
      want: "192.0.2.7",
    },
    {
      name: "may be IPv6",
      from: "fd00::5",
      forwarded: "2001:db8::1",
      want: "2001:db8::1",
    },
    {
      name: "is the first entry if all are trusted proxies",
      from: "10.0.0.1",
      forwarded: "10.0.0.3,10.0.0.2",
      want: "10.0.0.3",
    },
    {
      name: "is searched for in a bounded number of entries",
      from: "10.0.0.1",
      forwarded: `192.0.2.7,${"10.0.0.2,".repeat(5_000)}10.0.0.2`,
      want: "10.0.0.2",
    },
  ]) {
    void it(name, () => assert.equal(of(request(from, forwarded)), want));
  }

  void it("is ignored if no proxy is trusted", () => {
    const withoutProxies = createClientAddress([]);
    assert.equal(withoutProxies(request("10.0.0.1", "192.0.2.7")), "10.0.0.1");
  });
});
