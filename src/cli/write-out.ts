import type { Writable } from "node:stream";

/**
 * Resolves once the text is handed on, so that an exit after it cuts nothing off. A reader that has
 * left, as in `entrepot ls | head`, wants no more and is no failure.
 *
 * @throws the stream's error
 */
export function writeOut(stream: Writable, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: NodeJS.ErrnoException): void => {
      if (error.code === "EPIPE") resolve();
      else reject(error);
    };
    // The stream tells of a failure here too, where nobody's listening would end the process.
    stream.once("error", fail);
    stream.write(text, (error) => {
      if (error) return;
      stream.off("error", fail);
      resolve();
    });
  });
}
