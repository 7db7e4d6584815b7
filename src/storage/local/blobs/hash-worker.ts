import type { Hash } from "node:crypto";
import { readSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import {
  createDigestHash,
  type Digest,
  type DigestAlgorithm,
  digestSoFar,
} from "../../../oci/digest.ts";

/*
 * The thread that hashes large blobs. It follows the writer of a partial file, reading from the
 * descriptor that the main thread holds open (descriptors belong to the process, so a second one is
 * not needed, and a rename or removal has no effect), and hashes bytes that were not stored.
 * Hashes are computed in alternating slices, so that 20 GiB of an earlier fill do not delay the others.
 *
 * Each import costs the thread memory, so there are few.
 */

/** A request of the main thread, which assigns the `hash` numbers. Requests of one hash are served in order. */
export type HashRequest =
  | {
      readonly ask: "open";
      readonly hash: number;
      readonly algorithm: DigestAlgorithm;
      /** The file of the stored bytes; absent if the hash is fed by `update` only. */
      readonly fd: number | undefined;
    }
  | {
      readonly ask: "follow";
      readonly hash: number;
      readonly storedBytes: number;
    }
  | {
      readonly ask: "update";
      readonly hash: number;
      readonly bytes: Uint8Array;
    }
  | { readonly ask: "fork"; readonly hash: number; readonly fork: number }
  | { readonly ask: "digest"; readonly hash: number; readonly reply: number }
  | { readonly ask: "close"; readonly hash: number };

export type HashReply =
  | { readonly reply: number; readonly digest: Digest }
  /** Stored bytes could not be read; `code` is the system's. */
  | { readonly reply: number; readonly code: string }
  /** The worker no longer reads the file of that hash. */
  | { readonly closed: number };

export interface HashWorkerData {
  /** One Int32: bytes of `update` that were hashed or dropped, modulo 2^32. The main thread waits on it. */
  readonly doneBytes: SharedArrayBuffer;
}

type Step =
  | { readonly kind: "follow"; storedBytes: number }
  | { readonly kind: "update"; readonly bytes: Uint8Array }
  | { readonly kind: "fork"; readonly state: State }
  | { readonly kind: "digest"; readonly reply: number };

interface State {
  readonly id: number;
  readonly algorithm: DigestAlgorithm;
  readonly fd: number | undefined;
  /** Absent in a fork until its parent hash has reached the fork. */
  hash: Hash | undefined;
  position: number;
  code: string | undefined;
  steps: Step[];
  isQueued: boolean;
  isClosing: boolean;
}

const SLICE_BYTES = 2 * 1024 * 1024;
/** Fits into the second-level cache, as measured for readers. */
const READ_BYTES = 256 * 1024;

if (parentPort === null)
  throw new Error("hash-worker: got the main thread; expected a worker thread");
const port = parentPort;
const doneBytes = new Int32Array((workerData as HashWorkerData).doneBytes);
const buffer = new Uint8Array(READ_BYTES);
const states = new Map<number, State>();
/** Hashes with pending steps, the next one first. */
const queue: State[] = [];
let isTurnScheduled = false;

port.on("message", (request: HashRequest) => {
  if (request.ask === "open") {
    states.set(
      request.hash,
      newState(
        request.hash,
        request.algorithm,
        request.fd,
        createDigestHash(request.algorithm),
      ),
    );
    return;
  }
  const state = states.get(request.hash);
  if (state === undefined)
    throw new Error("got a request for a closed hash; expected an open one");
  if (request.ask === "close") close(state);
  else {
    addStep(state, request);
    enqueue(state);
  }
});

function newState(
  id: number,
  algorithm: DigestAlgorithm,
  fd: number | undefined,
  hash: Hash | undefined,
): State {
  return {
    id,
    algorithm,
    fd,
    hash,
    position: 0,
    code: undefined,
    steps: [],
    isQueued: false,
    isClosing: false,
  };
}

function addStep(
  state: State,
  request: Exclude<HashRequest, { ask: "open" | "close" }>,
): void {
  switch (request.ask) {
    case "follow": {
      const last = state.steps.at(-1);
      if (last?.kind === "follow") last.storedBytes = request.storedBytes;
      else {
        state.steps.push({ kind: "follow", storedBytes: request.storedBytes });
      }
      return;
    }
    case "update":
      state.steps.push({ kind: "update", bytes: request.bytes });
      return;
    case "fork": {
      const fork = newState(
        request.fork,
        state.algorithm,
        undefined,
        undefined,
      );
      states.set(fork.id, fork);
      state.steps.push({ kind: "fork", state: fork });
      return;
    }
    case "digest":
      state.steps.push({ kind: "digest", reply: request.reply });
      return;
    default:
      request satisfies never;
  }
}

function enqueue(state: State): void {
  if (state.isQueued || state.steps.length === 0) return;
  if (state.hash === undefined && state.code === undefined) return;
  state.isQueued = true;
  queue.push(state);
  scheduleTurn();
}

/** Runs one slice per turn of the event loop, so that messages are received in between. */
function scheduleTurn(): void {
  if (isTurnScheduled || queue.length === 0) return;
  isTurnScheduled = true;
  setImmediate(turn);
}

function turn(): void {
  isTurnScheduled = false;
  const state = queue.shift();
  if (state === undefined) return;
  state.isQueued = false;
  runSlice(state);
  if (state.isClosing && state.steps.length === 0) drop(state);
  else enqueue(state);
  scheduleTurn();
}

function runSlice(state: State): void {
  let leftBytes = SLICE_BYTES;
  for (let step = state.steps[0]; step !== undefined; step = state.steps[0]) {
    if (leftBytes <= 0) return;
    switch (step.kind) {
      case "follow":
        leftBytes -= follow(state, step.storedBytes, leftBytes);
        if (state.code === undefined && state.position < step.storedBytes) {
          return;
        }
        break;
      case "update":
        if (state.code === undefined) state.hash?.update(step.bytes);
        leftBytes -= step.bytes.length;
        countDone(step);
        break;
      case "fork":
        step.state.hash = state.hash?.copy();
        step.state.code = state.code;
        enqueue(step.state);
        break;
      case "digest":
        answer(state, step.reply);
        break;
      default:
        step satisfies never;
    }
    state.steps.shift();
  }
}

/** Hashes the file up to `storedBytes`, but at most `limitBytes` more. */
function follow(state: State, storedBytes: number, limitBytes: number): number {
  const start = state.position;
  const end = Math.min(storedBytes, start + limitBytes);
  try {
    if (state.fd === undefined) throw new Error("a hash without a file");
    while (state.code === undefined && state.position < end) {
      const bytesRead = readSync(
        state.fd,
        buffer,
        0,
        Math.min(buffer.length, end - state.position),
        state.position,
      );
      if (bytesRead === 0) state.code = "EOF";
      state.hash?.update(buffer.subarray(0, bytesRead));
      state.position += bytesRead;
    }
  } catch (error) {
    state.code =
      error instanceof Error && "code" in error
        ? String(error.code)
        : "EUNKNOWN";
  }
  return state.position - start;
}

function answer(state: State, reply: number): void {
  const message: HashReply =
    state.code === undefined && state.hash !== undefined
      ? { reply, digest: digestSoFar(state.algorithm, state.hash) }
      : { reply, code: state.code ?? "EUNKNOWN" };
  port.postMessage(message);
}

/** Completes the steps that a fork still depends on, and drops all others. */
function close(state: State): void {
  const lastFork = state.steps.findLastIndex((step) => step.kind === "fork");
  for (const step of state.steps.splice(lastFork + 1)) {
    if (step.kind === "update") countDone(step);
    if (step.kind === "digest") answerClosed(step.reply);
  }
  state.isClosing = true;
  if (state.steps.length === 0) drop(state);
}

function answerClosed(reply: number): void {
  port.postMessage({ reply, code: "ECLOSED" } satisfies HashReply);
}

function drop(state: State): void {
  states.delete(state.id);
  port.postMessage({ closed: state.id } satisfies HashReply);
}

function countDone(step: { readonly bytes: Uint8Array }): void {
  Atomics.add(doneBytes, 0, step.bytes.length);
  Atomics.notify(doneBytes, 0);
}
