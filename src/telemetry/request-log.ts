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
  const quoteSubject = rememberLast(quote);
  const quoteClient = rememberLast(quote);
  const quoteAgent = rememberLast((text) => quote(clip(text)));
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
    const { method, kind, upstream, repository, reference, target } = record;
    const { outcome, client, user, userAgent } = record;
    let line = writer.begin("info");
    if (method !== undefined) line += `,"method":${quote(method)}`;
    line += `,"kind":"${kind}"`;
    if (upstream !== undefined) line += `,"upstream":${quote(upstream)}`;
    if (repository !== undefined) line += `,"repository":${quote(repository)}`;
    if (reference !== undefined) {
      line += `,"reference":${quoteSubject(reference)}`;
    }
    if (target !== undefined) line += `,"target":${quote(target)}`;
    if (outcome !== undefined) line += `,"outcome":"${outcome}"`;
    line += `,"statusCode":${record.statusCode},"isWhole":${record.isWhole},"sizeBytes":${record.sizeBytes},"durationMs":${record.durationMs}`;
    if (client !== undefined) line += `,"client":${quoteClient(client)}`;
    if (user !== undefined) line += `,"user":${quote(user)}`;
    writer.write(
      `${line},"userAgent":${quoteAgent(userAgent)},"msg":"request"}\n`,
    );
  };
}

/** Letters, digits and signs that stand for themselves in JSON. */
const PLAIN = /^[\w .:/@+-]*$/;

function quote(text: string): string {
  return PLAIN.test(text) ? `"${text}"` : JSON.stringify(text);
}

/** The same is asked for again and again, by the same clients. */
function rememberLast(
  make: (text: string) => string,
): (text: string) => string {
  let last = "";
  let made = make(last);
  return (text) => {
    if (text !== last) {
      last = text;
      made = make(text);
    }
    return made;
  };
}
