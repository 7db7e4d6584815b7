import { Refusal } from "../../mirror/answers.ts";
import { RegistryError } from "../../oci/errors.ts";
import { messageOf } from "../../telemetry/error-record.ts";

/** Returns the error that the mirror would send to a client; undefined for other errors. */
export function registryErrorOf(error: unknown): RegistryError | undefined {
  if (error instanceof Refusal) return error.error;
  return error instanceof RegistryError ? error : undefined;
}

/** Formats a failure for the operator. */
export function failureText(error: unknown): string {
  const known = registryErrorOf(error);
  if (known === undefined) return messageOf(error);
  const { message, detail } = known;
  if (detail === "offline") return "not stored, and the mirror is offline";
  // The message is that of a class of errors; for the absence of a part it would name the wrong one.
  return detail ?? message;
}

/** Whether another attempt may succeed: the upstream or the storage failed, and said nothing about the content. */
export function isTransient(error: unknown): boolean {
  const code = registryErrorOf(error)?.code;
  return code === "UNAVAILABLE" || code === "TOOMANYREQUESTS";
}
