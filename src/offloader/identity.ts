/**
 * Who this side is: a key that receivers pin, and the id under which they keep what belongs to us. Both are made
 * once and kept, because every receiver must be paired again when they change.
 */
import { mkdir } from 'node:fs/promises';

import { silentLog, type Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import { loadDashboardId } from '../peers/dashboard-id.js';
import { loadIdentity } from '../peers/identity.js';

export interface OffloaderIdentity {
  /** Raw X25519 keys, 32 bytes each. */
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly dashboardId: DashboardId;
}

/** Loads the identity from a directory, or makes both. Throws system errors. */
export async function loadOffloaderIdentity(
  directory: string,
  log: Log = silentLog,
): Promise<OffloaderIdentity> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const { privateKey, publicKey } = await loadIdentity(directory, log);
  return { privateKey, publicKey, dashboardId: await loadDashboardId(directory, log) };
}
