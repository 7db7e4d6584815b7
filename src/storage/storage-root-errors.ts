/** The configured storage root can't be used until an operator changes the root or the key. */
export class StorageRootError extends Error {
  readonly root: string;
  readonly expected: string;

  /** @param expected as in `a folder; /srv/cache is a file` */
  constructor(root: string, expected: string, options?: { cause?: unknown }) {
    super(`storage.root: got ${root}; expected ${expected}`, options);
    this.name = "StorageRootError";
    this.root = root;
    this.expected = expected;
  }
}

/** Another process holds the storage root. */
export class RootInUseError extends Error {
  readonly root: string;
  /** The process id of the holder, if it could be read. */
  readonly pid: number | undefined;

  constructor(root: string, pid: number | undefined) {
    const owner = pid === undefined ? "another process" : `process ${pid}`;
    super(`the storage root ${root} is in use by ${owner}`);
    this.name = "RootInUseError";
    this.root = root;
    this.pid = pid;
  }
}
