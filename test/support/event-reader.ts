import assert from "node:assert/strict";
import type { Job } from "../../src/images/jobs/job.ts";
import { type AfterTest, releaseAfter } from "./after-test.ts";

export interface JobEvent {
  readonly event: string;
  readonly id: string;
  readonly job: Job;
}

/** A reader of server-sent events, as browsers parse them. */
export class EventReader {
  readonly #reader: ReadableStreamDefaultReader<string>;
  readonly #abort: AbortController;
  #text = "";

  private constructor(body: ReadableStream<string>, abort: AbortController) {
    this.#reader = body.getReader();
    this.#abort = abort;
  }

  static async open(
    test: AfterTest,
    origin: string,
    lastEventId?: string,
  ): Promise<EventReader> {
    const abort = new AbortController();
    const response = await fetch(`${origin}/api/v1/events`, {
      headers:
        lastEventId === undefined ? {} : { "last-event-id": lastEventId },
      signal: abort.signal,
    });
    assert.equal(response.status, 200);
    assert.equal(
      response.headers.get("content-type"),
      "text/event-stream; charset=utf-8",
    );
    assert(response.body !== null);
    const text = response.body.pipeThrough(new TextDecoderStream());
    releaseAfter(test, () => abort.abort());
    return new EventReader(text, abort);
  }

  leave(): void {
    this.#abort.abort();
  }

  /** Resolves with undefined when the stream has ended. */
  async next(): Promise<JobEvent | undefined> {
    for (;;) {
      const at = this.#text.indexOf("\n\n");
      if (at >= 0) {
        const block = this.#text.slice(0, at);
        this.#text = this.#text.slice(at + 2);
        const fields = new Map(
          block.split("\n").map((line) => {
            const [name = "", ...value] = line.split(": ");
            return [name, value.join(": ")];
          }),
        );
        if (!fields.has("data")) continue;
        return {
          event: fields.get("event") ?? "",
          id: fields.get("id") ?? "",
          job: JSON.parse(fields.get("data") ?? "") as Job,
        };
      }
      const { value, done } = await this.#reader.read();
      if (done) return undefined;
      this.#text += value;
    }
  }

  /** Resolves with the first such state of a job. */
  async until(isWanted: (job: Job) => boolean): Promise<Job> {
    for (;;) {
      const event = await this.next();
      assert(event !== undefined);
      if (isWanted(event.job)) return event.job;
    }
  }
}
