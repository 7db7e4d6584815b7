/** Work that runs in the server. Only the last two belong to the request that started them. */
export const JOB_KINDS = ["warm", "import", "export"] as const;

export type JobKind = (typeof JOB_KINDS)[number];

/**
 * `failed`: the work ended early, or at least one of its images failed. `cancelled` is reported as
 * soon as a job is cancelled; `endedAt` follows when its work has ended.
 */
export const JOB_STATES = [
  "queued",
  "running",
  "done",
  "failed",
  "cancelled",
] as const;

export type JobState = (typeof JOB_STATES)[number];

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
  /**
   * At most {@link MAX_JOB_ERRORS}, of jobs in lists and of older jobs {@link MAX_LISTED_ERRORS};
   * `errorCount` counts all.
   */
  readonly errors: readonly JobError[];
  readonly errorCount: number;
  /** What the lists of the job say and this server does not apply; at most as many as errors. */
  readonly notes: readonly JobError[];
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
  /** The reference, or the list and line, that failed; empty: the job as a whole. */
  readonly ref: string;
  readonly message: string;
}

export const MAX_JOB_ERRORS = 1_000;
export const MAX_LISTED_ERRORS = 10;

/** What the work of a job reports. */
export type JobProgress = Pick<
  Job,
  "done" | "total" | "bytes" | "bytesTotal" | "running" | "waitsUntil"
>;

/** A job as its work sees it. */
export interface JobRun {
  readonly id: string;
  /** Aborted by a cancellation, and when the server stops; the work then ends within a few seconds. */
  readonly signal: AbortSignal;
  report(progress: Partial<JobProgress>): void;
  /** Records a failure of one image; the work continues with the next one. */
  fail(ref: string, message: string): void;
  /** Records a part of a list that is not applied; the job does not fail for it. */
  note(ref: string, message: string): void;
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

/** A change of a job, as its subscribers receive it. */
export interface JobChange {
  /** As it is listed. */
  readonly job: Job;
  /** Grows with each change of any job since the server started. */
  readonly number: number;
}

/** The jobs of this server: those in work, and the last hundred that ended. */
export interface Jobs {
  /**
   * Starts a job, or queues it while another works. It is kept across restarts.
   *
   * @param request JSON; given to the work as it was kept
   * @throws RegistryError TOOMANYREQUESTS if too many jobs wait; IndexError if it could not be kept
   */
  start(kind: "warm", request: unknown): Promise<Job>;
  /**
   * Runs work that belongs to a request and ends with it: listed and cancelled like a job, its end kept
   * across restarts, but not continued after one.
   *
   * @param signal ends the work when its client leaves
   * @throws what the work throws; RegistryError TOOMANYREQUESTS if too much such work runs,
   *   UNAVAILABLE once the server stops
   */
  track<T>(
    kind: Exclude<JobKind, "warm">,
    signal: AbortSignal,
    work: (run: JobRun) => Promise<T>,
  ): Promise<T>;
  /** Returns the job with all of its errors. */
  get(id: string): Job | undefined;
  /** Newest first. */
  list(page: {
    readonly n: number;
    readonly last: string | undefined;
  }): JobPage;
  /**
   * Cancels a job; resolves when a restart would not continue it either. A job that has ended does not
   * change.
   *
   * @returns undefined if there is no such job
   * @throws IndexError if the job was cancelled and a restart might continue it
   */
  cancel(id: string): Promise<Job | undefined>;
  /**
   * Calls the listener after each change of a job, a few times a second at most.
   *
   * @param listener must not throw
   * @returns a function that ends the calls
   */
  subscribe(listener: (change: JobChange) => void): () => void;
  /** Returns the jobs that changed after that number, in the order of their last changes. */
  changesSince(number: number): readonly JobChange[];
}
