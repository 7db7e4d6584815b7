import type { ListenAddress } from "../../config/config.ts";
import { formatListenAddress } from "../../config/schema/forms.ts";

/** The likely cause of each of the system's codes, as what is expected of the key instead. */
const EXPECTED: Readonly<Record<string, string>> = {
  EADDRINUSE: "a port that is free; another process listens there already",
  EACCES: "a port that this user may listen on, such as one from 1024 on",
  EADDRNOTAVAIL: "an address of this machine",
  EAFNOSUPPORT: "an address of a family that this machine has",
  ENOTFOUND: "a name that resolves to an address of this machine",
  EAI_AGAIN: "a name that resolves; the name server does not answer",
  ETIMEDOUT: "a name that resolves; the name server does not answer",
};

/** A configured address cannot be listened on until an operator changes it, or what is there. */
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
