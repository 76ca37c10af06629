/**
 * The lock of one build directory, known by its key. Two compilers in one directory produce firmware that is
 * wrong and reported as success (seen with ESPHome 2026.10), so whatever compiles, replaces or deletes there
 * holds this lease. What it promises stands in lease.ts.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';

import type { RemoteKey } from '../paths/configuration.js';
import { acquireAt, type AcquireOptions, type Lease } from './lease.js';

export interface LeaseOptions extends AcquireOptions {
  /** Absolute. Holds one small directory for each key that was ever locked; they are never removed. */
  readonly locksDir: string;
  readonly key: Pick<RemoteKey, 'dashboardId' | 'device'>;
}

/** Waits for the lease of a build directory. Throws CANCELLED, LOCK_TIMEOUT, STORAGE. */
export function acquireLease({ locksDir, key, ...options }: LeaseOptions): Promise<Lease> {
  return acquireAt(join(locksDir, lockName('subtree', key.dashboardId, key.device)), options);
}

/** A short file name, the same for the same words and no others: it does not matter what the words hold. */
export function lockName(...words: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(words)).digest('hex').slice(0, 40);
}
