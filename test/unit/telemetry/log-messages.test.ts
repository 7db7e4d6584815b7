import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

const SRC = join(import.meta.dirname, "../../../src");
const CALL =
  /\blog(?:\??\.(?:trace|debug|info|warn|error|fatal)|\[[^\]]+\])\(/g;
const TEXT = /"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`/g;
/** One line for each request and each fill, whose fields say the rest; their names are documented. */
const EXCEPT = new Set(["request", "fill"]);

interface Message {
  readonly file: string;
  readonly text: string;
}

/** The arguments of a call that begins at `from`, without its fields in braces. */
function argumentsFrom(source: string, from: number): string {
  let depth = 0;
  let braces = 0;
  let text = "";
  for (let at = from; at < source.length; at++) {
    const [literal] = literalAt(source, at);
    if (literal !== undefined) {
      if (braces === 0) text += literal;
      at += literal.length - 1;
      continue;
    }
    const char = source.charAt(at);
    if (char === "{") braces += 1;
    else if (char === "}") braces -= 1;
    else if (char === "(") depth += 1;
    else if (char === ")" && depth === 0) return text;
    else if (char === ")") depth -= 1;
    else if (braces === 0) text += char;
  }
  return text;
}

function literalAt(source: string, at: number): [string | undefined] {
  const pattern = new RegExp(TEXT.source, "y");
  pattern.lastIndex = at;
  return [pattern.exec(source)?.[0]];
}

async function readMessages(): Promise<Message[]> {
  const files = (await readdir(SRC, { recursive: true })).filter((file) =>
    file.endsWith(".ts"),
  );
  const messages: Message[] = [];
  for (const file of files) {
    const source = await readFile(join(SRC, file), "utf8");
    for (const { index, 0: call } of source.matchAll(CALL)) {
      const texts = argumentsFrom(source, index + call.length).match(TEXT);
      assert.ok(texts, `${file}: a log call without a message in its place`);
      for (const text of texts) {
        messages.push({ file, text: text.slice(1, -1) });
      }
    }
  }
  return messages.filter(({ text }) => !EXCEPT.has(text));
}

void test("every log message is a sentence of four words or more", async () => {
  const messages = await readMessages();
  assert.ok(messages.length >= 45, String(messages.length));
  assert.deepEqual(
    messages.filter(({ text }) => text.split(/\s+/).length < 4),
    [],
  );
});

void test("every log message is used in one place only", async () => {
  const places = Map.groupBy(await readMessages(), ({ text }) => text);
  assert.deepEqual(
    [...places.values()].filter(({ length }) => length > 1),
    [],
  );
});
