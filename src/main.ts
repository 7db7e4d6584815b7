#!/usr/bin/env -S node --disable-sigusr1 --disable-proto=delete
import { enableCompileCache } from "node:module";
import { hardenProcess } from "./cli/harden-process.ts";

hardenProcess();

// Before anything else is loaded: what was compiled at an earlier start is not compiled again.
enableCompileCache();

// Read by libuv when the first file is touched asynchronously: reads of hits must not queue behind
// the writes and fsyncs of fills.
process.env["UV_THREADPOOL_SIZE"] ??= "16";

const { runCommandLine } = await import("./cli/command-line.ts");

// Nothing is known of the state after such a fault: what is on disk is safe, and a supervisor
// starts again.
for (const event of ["uncaughtException", "unhandledRejection"] as const) {
  process.on(event, (error: unknown) => {
    process.stderr.write(
      `entrepot: ${event}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
      () => process.exit(1),
    );
  });
}

process.exit(await runCommandLine(process.argv.slice(2)));
