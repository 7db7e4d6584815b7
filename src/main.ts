import { enableCompileCache } from "node:module";
import { hardenProcess } from "./cli/harden-process.ts";

hardenProcess();

// Before anything else is loaded, so that the code cache of an earlier start is used.
enableCompileCache();

// libuv reads it at the first asynchronous file operation. With more threads, reads of hits do not
// wait for the writes and fsyncs of fills.
process.env["UV_THREADPOOL_SIZE"] ??= "16";

const { runCommandLine } = await import("./cli/command-line.ts");

// The state in memory is unknown after such a fault. The content on disk is safe, so the process ends
// and its supervisor starts it again.
for (const event of ["uncaughtException", "unhandledRejection"] as const) {
  process.on(event, (error: unknown) => {
    process.stderr.write(
      `entrepot: ${event}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
      () => process.exit(1),
    );
  });
}

process.exit(await runCommandLine(process.argv.slice(2)));
