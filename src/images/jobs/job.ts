/** Work that runs in the server and outlives the client that started it. */
export type JobKind = "warm" | "import" | "export";

export type JobState = "queued" | "running" | "done" | "failed" | "cancelled";

/** A job as the operator API reports it. Times are RFC 3339 in UTC. */
export interface Job {
  readonly id: string;
  readonly kind: JobKind;
  readonly state: JobState;
  /** Images that are finished, failed ones included. */
  readonly done: number;
  /** Images that are known by now; it may grow while lists of tags are read. */
  readonly total: number;
  /** Bytes that are present by now, and those that the images examined so far need. */
  readonly bytes: number;
  readonly bytesTotal: number;
  /** The images in work. */
  readonly running: readonly JobImage[];
  /** At most {@link MAX_JOB_ERRORS}; `errorCount` counts all. */
  readonly errors: readonly JobError[];
  readonly errorCount: number;
  readonly startedAt: string | null;
  readonly endedAt: string | null;
  /** When a job that waits for the pull budget of an upstream continues. */
  readonly waitsUntil: string | null;
}

export interface JobImage {
  readonly ref: string;
  readonly bytes: number;
  readonly bytesTotal: number;
}

export interface JobError {
  /** The reference, or the list and line, that failed. */
  readonly ref: string;
  readonly message: string;
}

export const MAX_JOB_ERRORS = 1_000;

/** What the work of a job reports. */
export type JobProgress = Pick<
  Job,
  "done" | "total" | "bytes" | "bytesTotal" | "running" | "waitsUntil"
>;

/** A job as its work sees it. */
export interface JobRun {
  readonly id: string;
  /** Aborted by a cancellation, and when the server stops. */
  readonly signal: AbortSignal;
  report(progress: Partial<JobProgress>): void;
  /** Records a failure of one image; the work continues with the next one. */
  fail(ref: string, message: string): void;
}

/**
 * The work of one kind of job that continues after a restart of the server: it is called again with
 * the same request, and finds what it stored before.
 *
 * @param request JSON that was checked by the caller of {@link Jobs.start}
 */
export type JobWork = (request: unknown, run: JobRun) => Promise<void>;

export interface JobPage {
  readonly items: readonly Job[];
  /** The `last` of the next page; null at the end. */
  readonly next: string | null;
}

/** The jobs of this server: those in work, and the last hundred that ended. */
export interface Jobs {
  /** Starts a job, or queues it while others run. It is kept across restarts. */
  start(kind: "warm", request: unknown): Promise<Job>;
  /**
   * Runs work that belongs to a request and ends with it: listed and cancelled like a job, not continued
   * after a restart.
   *
   * @param signal ends the work when its client leaves
   * @throws what the work throws
   */
  track<T>(
    kind: Exclude<JobKind, "warm">,
    signal: AbortSignal,
    work: (run: JobRun) => Promise<T>,
  ): Promise<T>;
  get(id: string): Job | undefined;
  /** Newest first. */
  list(page: {
    readonly n: number;
    readonly last: string | undefined;
  }): JobPage;
  /** @returns undefined if there is no such job; a job that has ended does not change */
  cancel(id: string): Job | undefined;
  /** Calls the listener after each change of a job, a few times a second at most. @returns the end */
  subscribe(listener: (job: Job) => void): () => void;
}
