import { isIP } from "node:net";
import { AddressPolicy } from "../wire/address-policy.ts";
import { createDispatchers, type Dispatchers } from "../wire/dispatcher.ts";
import type { EndpointOptions } from "./endpoint.ts";
import {
  createExchange,
  type Exchange,
  type ExchangeOptions,
} from "../wire/exchange.ts";
import type { ForeignOrigins } from "./foreign-origins.ts";
import type { NameLookup } from "../wire/name-lookup.ts";
import { withoutBrackets } from "../wire/url-host.ts";

export interface EndpointWaysOptions extends Omit<
  ExchangeOptions,
  "dispatchers"
> {
  readonly lookup: NameLookup;
  readonly foreignOrigins: ForeignOrigins;
  /** Called with each set of dispatchers, which must be closed with the client. */
  readonly onOpened: (dispatchers: Dispatchers) => void;
}

/** Creates the exchanges with the endpoint itself and with other hosts; they share no connection. */
export function openWays(
  endpoint: string,
  options: EndpointWaysOptions,
): Pick<EndpointOptions, "exchange" | "foreignExchange"> {
  const { config, clock, observer, lookup, foreignOrigins, onOpened } = options;
  const { origin, hostname } = new URL(endpoint);
  const policy = new AddressPolicy(config.redirectHosts);
  const address = withoutBrackets(hostname);
  // The registry of a template was named by a client, not by the operator.
  const isTrusted = config.template === undefined;
  if (isTrusted && isIP(address) !== 0) policy.noteHome(address);
  const open = (side: "endpoint" | "foreign"): Exchange => {
    const dispatchers = createDispatchers({ config, lookup, policy, side });
    onOpened(dispatchers);
    return createExchange({ config, dispatchers, clock, observer });
  };
  const exchange = open(isTrusted ? "endpoint" : "foreign");
  const foreign = open("foreign");
  return {
    exchange,
    // A realm on the endpoint's own origin is as trusted as the endpoint.
    foreignExchange: foreignOrigins.guard((request) =>
      (request.url.origin === origin ? exchange : foreign)(request),
    ),
  };
}
