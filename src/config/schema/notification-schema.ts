import { fileOf, listOf, mappingOf, textOf } from "./schema-node.ts";

/** One entry of `notifications`. */
export const NOTIFICATION_SCHEMA = mappingOf(
  {
    url: textOf("webhook", {
      description:
        "Receives each event by `POST`, in Distribution's envelope. Logs and `check-config` show only its host: a path, a query and a user name may be secrets.",
      examples: ["https://hooks.corp/entrepot"],
      "x-expected":
        "an absolute http or https URL, such as https://hooks.corp/entrepot",
      "x-secret": true,
    }),
    headersFile: fileOf({
      description:
        "Secret headers of each request, one line `NAME: VALUE` each. Must have mode 0600 or 0640: rejected if every user of the machine may read it.",
      examples: ["/run/secrets/hook-headers"],
      "x-absent": "no header is added",
    }),
    events: listOf(
      {
        type: "string",
        enum: ["push", "pull", "delete", "mount"],
        "x-expected": "one of push, pull, delete, mount",
      },
      {
        minItems: 1,
        default: ["push", "delete"],
        description: "The events of hosted repositories that are sent.",
        examples: [["push", "pull", "delete", "mount"]],
        "x-expected": "a list of push, pull, delete and mount",
      },
    ),
  },
  {
    required: ["url"],
    "x-expected": "a mapping of url, headersFile and events",
  },
);
