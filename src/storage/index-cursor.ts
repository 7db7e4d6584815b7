declare const brand: unique symbol;

/** A place in one of the index's lists. Only the index that returned it can read it. */
export type IndexCursor = string & { readonly [brand]: "index cursor" };
