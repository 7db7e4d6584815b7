import type { Audit } from "../telemetry/audit.ts";
import type { EventSink } from "./hosted.ts";

/** Returns a sink that records pushed manifests and everything that is deleted. */
export function auditEvents(audit: Pick<Audit, "record">): EventSink {
  return ({ action, key, digest, tag, mediaType, sender }) => {
    if (action !== "push" && action !== "delete") return;
    // Layers are not recorded: the manifest that names them is.
    if (action === "push" && mediaType === undefined) return;
    const name = `${key.upstream}/${key.repository}`;
    const { client = "", user } = sender;
    audit.record({
      event: action === "push" ? "pushed" : "deleted",
      client,
      user,
      reference:
        tag === undefined ? `${name}@${digest ?? ""}` : `${name}:${tag}`,
      digest,
    });
  };
}
