/** The grammars of lists of references; `plain` has one reference a line. */
export const LIST_FORMATS = [
  "skopeo",
  "plain",
  "kubernetes",
  "compose",
  "hauler",
  "imageset",
] as const;

export type ListFormat = (typeof LIST_FORMATS)[number];

/** A list as its reader received it. */
export interface ListText {
  /** Names the list in messages: a file's name, or `-`. */
  readonly name: string;
  readonly text: string;
  /** Absent: recognised by the content. */
  readonly format?: ListFormat | undefined;
}

interface EntryBase {
  /** As in `images.yaml:12`. */
  readonly origin: string;
  /** Platforms that the list itself asks for, as in `linux/arm64`; empty: those of the command. */
  readonly platforms: readonly string[];
}

/** One image. */
export interface ReferenceEntry extends EntryBase {
  readonly kind: "reference";
  /** As the list has it, for {@link parseImageReference}. */
  readonly ref: string;
}

/** Tags of a repository that its registry must list first. */
export interface TagsEntry extends EntryBase {
  readonly kind: "tags";
  /** `registry/repository`, as the list has it. */
  readonly repository: string;
  /** Returns whether the list selects the tag. */
  readonly selects: (tag: string) => boolean;
}

export type ListEntry = ReferenceEntry | TagsEntry;

/** A part of a list that cannot be used; the rest of the list is. */
export interface ListFault {
  readonly origin: string;
  /** `got X; expected Y`. */
  readonly message: string;
}

export interface ParsedList {
  readonly entries: readonly ListEntry[];
  readonly faults: readonly ListFault[];
  /** What the list says and this server does not apply, such as credentials; names no secret. */
  readonly notes: readonly ListFault[];
}
