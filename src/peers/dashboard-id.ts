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

/** Loads `dashboard-id` from the directory, or makes it. Throws system errors. */
export async function loadDashboardId(directory: string, log: Log): Promise<DashboardId> {
  const kept = {
    what: 'the dashboard id',
    parse: (content: Buffer) => idOrUndefined(content.toString('latin1').trim()),
    create: () => Buffer.from(`${newDashboardId()}\n`),
  };
  return loadOrCreate(join(directory, 'dashboard-id'), kept, log);
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
