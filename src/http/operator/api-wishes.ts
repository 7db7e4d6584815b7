import type { FastifyInstance } from "fastify";
import type { Wishes } from "../../images/wishes.ts";
import { ABSENCES } from "../../mirror/answers.ts";
import {
  COUNT,
  DENIED,
  json,
  list,
  MAX_PAGE,
  object,
  pageQuery,
  problem,
  TEXT,
  TEXT_OR_NULL,
  TIME,
} from "./api-schemas.ts";
import type { OperationSchema } from "./openapi.ts";

/** The part of the program that counts names that could not be had. */
export interface WishesSource {
  readonly wishes: Pick<Wishes, "list">;
}

const SCHEMA = {
  summary:
    "Lists the images that clients asked for and could not have, and that are not stored since, by reference.",
  querystring: {
    type: "object",
    properties: {
      ...pageQuery("Images", "reference"),
    },
  },
  response: {
    "200": json(
      "A page of images; requests within ten seconds count as one pull; `next` is null on the last page.",
      object({
        items: list(
          object({
            ref: TEXT,
            reason: { type: "string", enum: ABSENCES },
            count: COUNT,
            lastAt: TIME,
          }),
        ),
        next: TEXT_OR_NULL,
      }),
    ),
    "400": problem("n or last is not valid."),
    ...DENIED,
    "503": problem("The index does not respond."),
  },
} satisfies OperationSchema;

/** `GET /api/v1/wishes`. */
export async function wishesApi(
  app: FastifyInstance,
  { wishes }: WishesSource,
): Promise<void> {
  app.get<{
    Querystring: { readonly n: number; readonly last?: string };
  }>("/api/v1/wishes", { schema: SCHEMA }, ({ query: { n, last } }) =>
    wishes.list({ n: Math.min(n, MAX_PAGE), last }),
  );
}
