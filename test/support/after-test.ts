/** What of `node:test` says when a test is over: its context, or `{ after }` within a suite. */
export interface AfterTest {
  after(release: () => Promise<void> | void): void;
}

type Release = () => Promise<unknown> | void;

const releases = new WeakMap<AfterTest, Release[]>();

/**
 * Has something released when the test is over, the last one first: `node:test` itself runs its
 * hooks in the order given, which would take a folder away from a process that still runs in it.
 */
export function releaseAfter(test: AfterTest, release: Release): void {
  const held = releases.get(test);
  if (held !== undefined) {
    held.push(release);
    return;
  }
  const all = [release];
  releases.set(test, all);
  test.after(async () => {
    const errors: unknown[] = [];
    for (const one of all.toReversed()) {
      try {
        await one();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, "not released");
  });
}
