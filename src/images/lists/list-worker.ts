import { parentPort, workerData } from "node:worker_threads";
import type { ListText } from "./list-entry.ts";
import { draftList } from "./parse-list.ts";

/*
 * The worker thread that parses one list. A megabyte of YAML takes about a second, which would stop
 * every download on the main thread.
 */

if (parentPort === null)
  throw new Error("got the main thread; expected to be started as a worker");
const port = parentPort;

port.postMessage(draftList(workerData as ListText));
