import type { ListenAddress } from "../../config/config.ts";
import { formatListenAddress } from "../../config/schema/forms.ts";

/** The expected value of the key, by the system's error code. */
const EXPECTED: Readonly<Record<string, string>> = {
  EADDRINUSE: "a free port; another process listens on this one",
  EACCES: "a port that this user may listen on, such as one from 1024 on",
  EADDRNOTAVAIL: "an address of this machine",
  EAFNOSUPPORT: "an address of a family that this machine has",
  ENOTFOUND: "a name that resolves to an address of this machine",
  EAI_AGAIN: "a name that resolves; the name server does not respond",
  ETIMEDOUT: "a name that resolves; the name server does not respond",
};

/** A configured address cannot be listened on. */
export class ListenError extends Error {
  readonly code: string;

  /** @param key of the configuration, as in `operator.listen` */
  constructor(key: string, address: ListenAddress, cause: unknown) {
    const code =
      cause instanceof Error && "code" in cause
        ? String(cause.code)
        : "unknown";
    super(
      `${key}: got ${formatListenAddress(address)}; expected ${EXPECTED[code] ?? "an address that can be listened on"} (${code})`,
      { cause },
    );
    this.name = "ListenError";
    this.code = code;
  }
}
