import { discardBody } from "../wire/body.ts";
import type { Answer, Exchange } from "../wire/exchange.ts";
import { type Identity, requestHeaders } from "../wire/request-headers.ts";

/** Requests the root of the API without a token. */
export async function askRoot(
  {
    identity,
    exchange,
  }: { readonly identity: Identity; readonly exchange: Exchange },
  endpoint: URL,
  signal: AbortSignal,
): Promise<Answer> {
  const answer = await exchange({
    kind: "token",
    method: "GET",
    url: new URL("/v2/", endpoint),
    headers: requestHeaders(identity, {}),
    signal,
  });
  discardBody(answer.body);
  return answer;
}
