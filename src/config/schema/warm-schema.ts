import { PLATFORM_PATTERN } from "../../oci/platform.ts";
import { listOf, mappingOf, textOf } from "./schema-node.ts";

/** One list of `warm`. */
const SCHEDULED_LIST = mappingOf(
  {
    schedule: textOf("schedule", {
      description:
        "When the images of the list are fetched: a cron expression of five fields, in local time. A run that is due while the mirror is stopped is skipped, as is one whose predecessor has not ended.",
      examples: ["0 2 * * *", "30 1 * * MON-FRI"],
      "x-expected":
        "minute, hour, day of the month, month and day of the week, such as 0 2 * * *",
    }),
    list: {
      type: "string",
      "x-path": "file",
      minLength: 1,
      description:
        "The file with the references, read at each run: the YAML of `skopeo sync`, one reference per line, Kubernetes manifests, a compose file, hauler `Images` or an `ImageSetConfiguration`.",
      examples: ["/etc/entrepot/images.txt"],
      "x-expected": "the path of a file",
    },
    platforms: listOf(
      {
        type: "string",
        pattern: PLATFORM_PATTERN,
        "x-expected": "OS/ARCH or OS/ARCH/VARIANT, such as linux/arm64",
      },
      {
        default: [],
        maxItems: 32,
        description:
          "Platforms to fetch of images that have several, for entries of the list that name none themselves.",
        examples: [["linux/amd64", "linux/arm64"]],
        "x-expected": "a list of platforms, such as [linux/amd64, linux/arm64]",
        "x-zero": "every platform",
      },
    ),
    withReferrers: {
      type: "boolean",
      default: false,
      description: "Fetches signatures, attestations and SBOMs too.",
      "x-expected": "true or false",
    },
    pin: {
      type: "boolean",
      default: false,
      description: "Pins the images, so that they are never evicted.",
      "x-expected": "true or false",
    },
  },
  {
    required: ["schedule", "list"],
    "x-expected": "a mapping of schedule, list and options",
  },
);

/** `warm` */
export const WARM_SCHEMA = {
  type: "array",
  items: SCHEDULED_LIST,
  default: [],
  maxItems: 64,
  description:
    "Lists of images that are fetched on a schedule, before a client requests them. What is stored is not fetched again.",
  examples: [[{ schedule: "0 2 * * *", list: "/etc/entrepot/images.txt" }]],
  "x-expected": "a list of mappings of schedule and list",
  "x-zero": "only pulls and `entrepot warm` fetch images",
} as const;
