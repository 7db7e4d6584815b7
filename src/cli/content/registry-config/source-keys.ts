/** A key of a configuration, as in `http.addr` or `notifications.endpoints.0.url`. */
export type KeyName = string;

/** The keys of a foreign configuration; finds those that were not translated. */
export class SourceKeys {
  readonly #document: unknown;
  readonly #read = new Set<KeyName>();

  constructor(document: unknown) {
    this.#document = document;
  }

  /** Returns the text of a key, also of a number. */
  text(key: KeyName): string | undefined {
    const value = this.#take(key);
    return typeof value === "string" || typeof value === "number"
      ? String(value)
      : undefined;
  }

  /** Returns a truth value; the words of YAML 1.1 count too, which Distribution reads. */
  isTrue(key: KeyName): boolean {
    const value = this.#take(key);
    return (
      value === true ||
      (typeof value === "string" && /^(?:true|yes|on|y)$/i.test(value))
    );
  }

  texts(key: KeyName): readonly string[] {
    const value = this.#take(key);
    return Array.isArray(value)
      ? value.filter((item): item is string => typeof item === "string")
      : [];
  }

  /** Returns the number of items of a list, which stay unread. */
  count(key: KeyName): number {
    const value = this.#find(key);
    return Array.isArray(value) ? value.length : 0;
  }

  has(key: KeyName): boolean {
    return this.#find(key) !== undefined;
  }

  /** Returns the keys of a mapping, which stay unread. */
  keysOf(key: KeyName): readonly string[] {
    const value = this.#find(key);
    return typeof value === "object" && value !== null
      ? Object.keys(value)
      : [];
  }

  /** Marks a key, and those below it, as read. */
  ignore(key: KeyName): void {
    this.#read.add(key);
  }

  /** Returns the keys that were not read; of a mapping without any that was, its own. */
  unread(): readonly KeyName[] {
    return this.#unreadBelow(this.#document, "");
  }

  #take(key: KeyName): unknown {
    this.#read.add(key);
    return this.#find(key);
  }

  #find(key: KeyName): unknown {
    let value: unknown = this.#document;
    for (const part of key.split(".")) {
      if (typeof value !== "object" || value === null) return undefined;
      value = Object.hasOwn(value, part) ? Reflect.get(value, part) : undefined;
    }
    return value ?? undefined;
  }

  #unreadBelow(value: unknown, prefix: string): readonly KeyName[] {
    const found: KeyName[] = [];
    if (typeof value !== "object" || value === null) return found;
    for (const [name, below] of Object.entries(value)) {
      const key = prefix === "" ? name : `${prefix}.${name}`;
      if (this.#read.has(key)) continue;
      const hasRead = [...this.#read].some((read) =>
        read.startsWith(`${key}.`),
      );
      found.push(...(hasRead ? this.#unreadBelow(below, key) : [key]));
    }
    return found;
  }
}
