import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { assert as check, ipV4, property } from "fast-check";
import {
  type AddressClass,
  AddressPolicy,
  classifyAddress,
} from "../../../src/wire/address-policy.ts";

const CLASSES: readonly (readonly [string, AddressClass])[] = [
  ["1.1.1.1", "public"],
  ["172.15.255.255", "public"],
  ["172.32.0.1", "public"],
  ["100.63.255.255", "public"],
  ["2606:4700::1111", "public"],
  ["127.0.0.1", "loopback"],
  ["127.255.255.254", "loopback"],
  ["0.0.0.0", "loopback"],
  ["::", "loopback"],
  ["::1", "loopback"],
  ["::ffff:127.0.0.1", "loopback"],
  ["::ffff:7f00:1", "loopback"],
  ["::127.0.0.1", "loopback"],
  ["::ffff:0:127.0.0.1", "loopback"],
  ["64:ff9b::127.0.0.1", "loopback"],
  ["2002:7f00:1::", "loopback"],
  ["10.0.0.1", "private"],
  ["172.16.0.1", "private"],
  ["172.31.255.255", "private"],
  ["192.168.1.1", "private"],
  ["100.64.0.1", "private"],
  ["100.127.255.255", "private"],
  ["198.18.0.1", "private"],
  ["fd12:3456::1", "private"],
  ["fc00::1", "private"],
  ["fec0::1", "private"],
  ["64:ff9b::10.1.2.3", "private"],
  ["64:ff9b:1::8.8.8.8", "private"],
  ["::ffff:192.168.0.1", "private"],
  ["2002:a00:1::1", "private"],
  ["169.254.1.1", "link-local"],
  ["fe80::1", "link-local"],
  ["fe80::1%eth0", "link-local"],
  ["::ffff:169.254.1.1", "link-local"],
  ["169.254.169.254", "metadata"],
  ["::ffff:a9fe:a9fe", "metadata"],
  ["64:ff9b::a9fe:a9fe", "metadata"],
  ["fd00:ec2::254", "metadata"],
  ["100.100.100.200", "metadata"],
  ["168.63.129.16", "metadata"],
  ["224.0.0.1", "reserved"],
  ["255.255.255.255", "reserved"],
  ["ff02::1", "reserved"],
  ["2001:0:1::1", "reserved"],
  ["no address", "reserved"],
];

function hex(high = 0, low = 0): string {
  return ((high << 8) | low).toString(16);
}

void describe("classifyAddress", () => {
  for (const [address, want] of CLASSES) {
    void it(`calls ${address} ${want}`, () => {
      assert.equal(classifyAddress(address), want);
    });
  }

  void it("classifies an IPv4 address equally in every IPv6 form", () => {
    const seed = 0x5eed;
    check(
      property(ipV4(), (address) => {
        const want = classifyAddress(address);
        const [a, b, c, d] = address.split(".").map(Number);
        for (const form of [
          `::ffff:${address}`,
          `::ffff:${hex(a, b)}:${hex(c, d)}`,
          `0:0:0:0:0:ffff:${address}`,
          `64:ff9b::${address}`,
          `::ffff:0:${address}`,
          `2002:${hex(a, b)}:${hex(c, d)}::1`,
        ]) {
          assert.equal(classifyAddress(form), want, form);
        }
      }),
      { seed, numRuns: 500 },
    );
  });

  void it("classifies every spelling of an address that a URL allows", () => {
    for (const host of ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0"]) {
      const { hostname } = new URL(`http://${host}/`);
      assert.equal(classifyAddress(hostname), "loopback", host);
    }
  });
});

void describe("AddressPolicy", () => {
  void it("allows public addresses only", () => {
    const policy = new AddressPolicy([]);
    assert.equal(policy.refuse("cdn.example", "1.1.1.1"), undefined);
    for (const [address, found] of CLASSES) {
      if (found === "public") continue;
      assert.equal(policy.refuse("cdn.example", address), found, address);
    }
  });

  void it("allows addresses of the same class as the endpoint's own", () => {
    const policy = new AddressPolicy([]);
    policy.noteHome("10.0.0.5");
    assert.equal(policy.refuse("minio.corp", "192.168.0.1"), undefined);
    assert.equal(policy.refuse("minio.corp", "fd00::1"), undefined);
    assert.equal(policy.refuse("minio.corp", "127.0.0.1"), "loopback");
    assert.equal(policy.refuse("minio.corp", "169.254.169.254"), "metadata");
    assert.equal(policy.refuse("fd00:ec2::254", "fd00:ec2::254"), "metadata");
  });

  void it("takes neither a metadata address nor a public one for a home", () => {
    const policy = new AddressPolicy([]);
    policy.noteHome("169.254.169.254");
    policy.noteHome("1.1.1.1");
    assert.equal(policy.refuse("x.example", "169.254.1.1"), "link-local");
    assert.equal(policy.refuse("x.example", "10.0.0.1"), "private");
  });

  void it("allows hosts and ranges that redirectHosts lists", () => {
    const policy = new AddressPolicy([
      "minio.corp",
      "*.s3.corp",
      "**.deep.corp",
      "10.20.0.0/16",
      "fd00:20::/32",
      "169.254.7.7",
    ]);
    const passes: readonly (readonly [string, string])[] = [
      ["minio.corp", "192.168.0.1"],
      ["MINIO.corp.", "192.168.0.1"],
      ["minio.corp", "127.0.0.1"],
      ["a.s3.corp", "192.168.0.1"],
      ["a.b.deep.corp", "192.168.0.1"],
      ["other.corp", "10.20.3.4"],
      ["other.corp", "::ffff:10.20.3.4"],
      ["other.corp", "fd00:20::1"],
      ["other.corp", "169.254.7.7"],
    ];
    for (const [host, address] of passes) {
      assert.equal(
        policy.refuse(host, address),
        undefined,
        `${host} ${address}`,
      );
    }
    const refused: readonly (readonly [string, string, AddressClass])[] = [
      ["minio.corp.evil.example", "192.168.0.1", "private"],
      ["a.b.s3.corp", "192.168.0.1", "private"],
      ["other.corp", "10.21.0.1", "private"],
      // A name may resolve to any address later: addresses this dangerous must be listed by address.
      ["minio.corp", "169.254.169.254", "metadata"],
      ["minio.corp", "169.254.1.1", "link-local"],
    ];
    for (const [host, address, want] of refused) {
      assert.equal(policy.refuse(host, address), want, `${host} ${address}`);
    }
  });
});
