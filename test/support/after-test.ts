import { after } from "node:test";

/** What of `node:test` says when a test is over: its context, or {@link afterSuite}. */
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

/**
 * For what the tests of a suite share. It is called in the body of `describe`: an `after` that is
 * called in a `before` hook runs when that hook is over.
 */
export function afterSuite(): AfterTest {
  const hooks: (() => Promise<void> | void)[] = [];
  after(async () => {
    for (const hook of hooks) await hook();
  });
  return {
    after: (hook) => {
      hooks.push(hook);
    },
  };
}
