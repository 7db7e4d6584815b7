import type { Writable } from "node:stream";

/**
 * Resolves once the text is written, so that a later exit does not truncate it. A reader that has
 * closed the pipe (EPIPE), as in `entrepot ls | head`, is not a failure.
 *
 * @returns false if the reader has left
 * @throws the stream's error
 */
export function writeOut(stream: Writable, text: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const fail = (error: NodeJS.ErrnoException): void => {
      if (error.code === "EPIPE") resolve(false);
      else reject(error);
    };
    // The stream also emits the error; without a listener that would end the process.
    stream.once("error", fail);
    stream.write(text, (error) => {
      if (error) return;
      stream.off("error", fail);
      resolve(true);
    });
  });
}
