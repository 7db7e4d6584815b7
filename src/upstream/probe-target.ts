import type { EndpointRequest } from "./endpoint-request.ts";
import type { Answer } from "../wire/exchange.ts";

type Named = Pick<EndpointRequest, "repository" | "target">;

/** The light request that shows whether an endpoint is up: a HEAD of a manifest that it gave, or its root. */
export class ProbeTarget {
  /** The manifest that was given last: one that never worked would prove nothing. */
  #manifest: Named | undefined;
  #hasHeadFailed = false;
  /** A HEAD of a manifest was answered 200, and no GET worked after a HEAD that failed. */
  #isHeadProven = false;

  /** Notes the answer to a client's request for a manifest. */
  note({ method, repository, target }: EndpointRequest, status: number): void {
    if (method === "HEAD" && status >= 500) this.#hasHeadFailed = true;
    if (status !== 200) return;
    this.#manifest = { repository, target };
    if (method === "HEAD") {
      this.#isHeadProven = true;
      this.#hasHeadFailed = false;
    } else if (this.#hasHeadFailed) {
      this.#isHeadProven = false;
    }
  }

  /** Some registries answer 5xx to every HEAD though GET works: there the root has to do. */
  async ask(how: {
    readonly head: (manifest: Named) => Promise<Answer>;
    readonly root: () => Promise<Answer>;
    readonly isThrottled: boolean;
  }): Promise<Answer> {
    if (this.#manifest === undefined || how.isThrottled) return how.root();
    const isProven = this.#isHeadProven;
    const answer = await how.head(this.#manifest);
    return answer.status >= 500 && !isProven ? how.root() : answer;
  }
}
