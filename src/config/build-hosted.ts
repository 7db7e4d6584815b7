import {
  type HostedConfig,
  type NotificationConfig,
  Secret,
} from "./config.ts";
import type { ConfigDocument } from "./document.ts";
import type { NotificationFiles } from "./files/notification-files.ts";
import { HOSTED_SCHEMA } from "./schema/hosted-schema.ts";
import { NOTIFICATION_SCHEMA } from "./schema/notification-schema.ts";
import { readSettings } from "./schema/settings.ts";

type Resolve = (path: string) => string;

/** Builds the hosted registries, in the file's order. */
export function buildHosted(
  { hosted }: ConfigDocument,
  resolve: Resolve,
): HostedConfig[] {
  return Object.entries(hosted ?? {}).map(([name, written]) => ({
    ...readSettings(HOSTED_SCHEMA, written, resolve),
    name,
  }));
}

/** @param files the headers of each webhook, in order */
export function buildNotifications(
  { notifications }: ConfigDocument,
  files: NotificationFiles | undefined,
  resolve: Resolve,
): NotificationConfig[] {
  return notifications.map((written, index) => {
    const { url, events, headersFile } = readSettings(
      NOTIFICATION_SCHEMA,
      written,
      resolve,
    );
    return {
      url: new Secret(url),
      headers: files?.headers[index] ?? new Map<string, Secret>(),
      events,
      ...(headersFile === undefined ? {} : { headersFile }),
    };
  });
}
