import { stdSerializers } from "pino";

/** More than any chain of causes in this program; ends a circular chain. */
const MAX_DEPTH = 8;

/**
 * Returns the fields of a log record for an error: type, message including those of its causes, own
 * fields. Only a bug gets a stack: the stack of an external fault shows only where it was noticed,
 * and an unreachable registry would fill the log with it.
 */
export function describeError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const record: unknown = stdSerializers.err(error);
  return isBug(error) ? record : withoutStacks(record, 0);
}

/**
 * Returns whether an error is a bug. Errors of the system, of libraries and of the program's own
 * families have a code or a class of their own.
 */
function isBug(error: Error): boolean {
  if (error.constructor === Error && !("code" in error)) return true;
  let cause: unknown = error;
  for (let depth = 0; depth < MAX_DEPTH; depth += 1) {
    if (!(cause instanceof Error)) return false;
    if (
      cause instanceof TypeError ||
      cause instanceof RangeError ||
      cause instanceof ReferenceError ||
      cause.name === "AssertionError"
    ) {
      return true;
    }
    cause = cause.cause;
  }
  return false;
}

function withoutStacks(value: unknown, depth: number): unknown {
  if (depth >= MAX_DEPTH || typeof value !== "object" || value === null) {
    return value;
  }
  if (Array.isArray(value)) {
    return value.map((item: unknown) => withoutStacks(item, depth + 1));
  }
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => key !== "stack")
      .map(([key, part]) => [key, withoutStacks(part, depth + 1)]),
  );
}

/** Returns the message of an error, or any other thrown value as text. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
