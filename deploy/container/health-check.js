// The image's HEALTHCHECK: is the mirror alive? Asks the operator listener, or the registry API
// where that is switched off, at the address that the environment gives them.
import { get } from "node:http";

const { ENTREPOT_LISTEN, ENTREPOT_OPERATOR__LISTEN } = process.env;
const [listen, path] =
  ENTREPOT_OPERATOR__LISTEN === "false"
    ? [ENTREPOT_LISTEN || "127.0.0.1:5000", "/v2/"]
    : [ENTREPOT_OPERATOR__LISTEN || "127.0.0.1:5001", "/healthz"];
// Who listens on every address is asked on the loopback.
const address = listen
  .replace(/^0\.0\.0\.0:/, "127.0.0.1:")
  .replace(/^\[::\]:/, "[::1]:");

get(
  `http://${address}${path}`,
  { signal: AbortSignal.timeout(4_000) },
  ({ statusCode }) => process.exit(statusCode === 200 ? 0 : 1),
).on("error", () => process.exit(1));
