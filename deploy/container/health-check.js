// The image's HEALTHCHECK: exits with 0 if the mirror answers. Requests /healthz of the operator
// listener, or the registry API if that listener is off, at the address from the environment.
import { get } from "node:http";

const { ENTREPOT_LISTEN, ENTREPOT_OPERATOR__LISTEN } = process.env;
const [listen, path] =
  ENTREPOT_OPERATOR__LISTEN === "false"
    ? [ENTREPOT_LISTEN || "127.0.0.1:5000", "/v2/"]
    : [ENTREPOT_OPERATOR__LISTEN || "127.0.0.1:5001", "/healthz"];
// A listener on every address is reached on the loopback.
const address = listen
  .replace(/^0\.0\.0\.0:/, "127.0.0.1:")
  .replace(/^\[::\]:/, "[::1]:");

get(
  `http://${address}${path}`,
  { signal: AbortSignal.timeout(4_000) },
  ({ statusCode }) => process.exit(statusCode === 200 ? 0 : 1),
).on("error", () => process.exit(1));
