/**
 * The name under which this installation is known to the dashboards that it talks to. It is no secret and proves
 * nothing, but a peer's builds and pairing hang on it, so it is made once and kept.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';

import { isReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import { dashboardId, type DashboardId } from '../paths/index.js';
import { loadOrCreate } from './kept-file.js';

/** A fresh id: 24 random bytes, 32 characters of base64url. */
export function newDashboardId(): DashboardId {
  return dashboardId(randomBytes(24).toString('base64url'));
}

/** In the state directory. */
export const dashboardIdFile = 'dashboard-id';

/** What of the text may stand in a DNS label: in lower case, only `a-z 0-9 -`, and `_` as `-`. */
export function dnsLabel(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9_-]/g, '')
    .replaceAll('_', '-');
}

/** The same for ids that could mean one directory: they name directories, and some file systems do not tell `A` from `a`. */
export function foldId(id: string): string {
  return id.toLowerCase();
}

/** The text itself where it is an id, else an id of the same {@link dnsLabel}. */
export function idOfSameName(text: string): DashboardId {
  return idOrUndefined(text) ?? dashboardId(dnsLabel(text).slice(0, 64).padEnd(8, '-'));
}

/** Loads the {@link dashboardIdFile} from the directory, or makes it. Throws system errors. */
export async function loadDashboardId(directory: string, log: Log): Promise<DashboardId> {
  const kept = {
    what: 'the dashboard id',
    parse: (content: Buffer) => idOrUndefined(content.toString('latin1').trim()),
    create: () => Buffer.from(`${newDashboardId()}\n`),
  };
  return loadOrCreate(join(directory, dashboardIdFile), kept, log);
}

/** The id when it has the right form, else undefined. */
export function idOrUndefined(text: unknown): DashboardId | undefined {
  try {
    return dashboardId(text);
  } catch (error) {
    if (isReceiverError(error, 'TRAVERSAL')) return undefined;
    throw error;
  }
}
