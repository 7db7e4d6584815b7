import { clip, lineWriterOf, type Logger } from "./logger.ts";

/** What the log tells of a request. What is undefined is not told. */
export interface RequestRecord {
  readonly method: string | undefined;
  readonly kind: string;
  readonly upstream: string | undefined;
  readonly repository: string | undefined;
  readonly reference: string | undefined;
  /** The path, where nothing else is known of it. */
  readonly target: string | undefined;
  readonly outcome: string | undefined;
  readonly statusCode: number;
  readonly isWhole: boolean;
  readonly sizeBytes: number;
  readonly durationMs: number;
  readonly client: string | undefined;
  readonly user: string | undefined;
  readonly userAgent: string;
  readonly err: unknown;
}

/**
 * Logs one line a request, at `info`. What went well is put together here, for the logger would
 * look at each field of each record anew: twice the time, and that of half an answer.
 */
export function createRequestLog(log: Logger): (record: RequestRecord) => void {
  const writer = lineWriterOf(log);
  // The same is asked for again and again, by the same clients.
  let last: RequestRecord | undefined;
  let before = "";
  let after = "";
  return (record) => {
    if (writer === undefined || record.err !== undefined) {
      const { err, ...told } = record;
      const userAgent = clip(record.userAgent);
      log.info(
        { ...told, userAgent, ...(err === undefined ? {} : { err }) },
        "request",
      );
      return;
    }
    if (!log.isLevelEnabled("info")) return;
    if (last === undefined || !isAlike(record, last)) {
      last = record;
      before = formatBefore(record);
      after = formatAfter(record);
    }
    writer.write(writer.begin("info") + before + record.durationMs + after);
  };
}

/** Whether two records differ in nothing but their durations. */
function isAlike(one: RequestRecord, other: RequestRecord): boolean {
  return (
    one.reference === other.reference &&
    one.client === other.client &&
    one.userAgent === other.userAgent &&
    one.repository === other.repository &&
    one.upstream === other.upstream &&
    one.kind === other.kind &&
    one.method === other.method &&
    one.outcome === other.outcome &&
    one.sizeBytes === other.sizeBytes &&
    one.statusCode === other.statusCode &&
    one.isWhole === other.isWhole &&
    one.user === other.user &&
    one.target === other.target
  );
}

/** What stands before the duration. */
function formatBefore(record: RequestRecord): string {
  const { method, kind, upstream, repository, reference, target, outcome } =
    record;
  let text = "";
  if (method !== undefined) text += `,"method":${quote(method)}`;
  text += `,"kind":"${kind}"`;
  if (upstream !== undefined) text += `,"upstream":${quote(upstream)}`;
  if (repository !== undefined) text += `,"repository":${quote(repository)}`;
  if (reference !== undefined) text += `,"reference":${quote(reference)}`;
  if (target !== undefined) text += `,"target":${quote(target)}`;
  if (outcome !== undefined) text += `,"outcome":"${outcome}"`;
  const { statusCode, isWhole, sizeBytes } = record;
  return `${text},"statusCode":${statusCode},"isWhole":${isWhole},"sizeBytes":${sizeBytes},"durationMs":`;
}

/** What stands behind it. */
function formatAfter({ client, user, userAgent }: RequestRecord): string {
  let text = "";
  if (client !== undefined) text += `,"client":${quote(client)}`;
  if (user !== undefined) text += `,"user":${quote(user)}`;
  return `${text},"userAgent":${quote(clip(userAgent))},"msg":"request"}\n`;
}

/** Letters, digits and signs that stand for themselves in JSON. */
const PLAIN = /^[\w .:/@+-]*$/;

function quote(text: string): string {
  return PLAIN.test(text) ? `"${text}"` : JSON.stringify(text);
}
