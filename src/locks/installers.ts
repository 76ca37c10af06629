/**
 * One installer of a platform's tools at a time. The gate of a toolchain (toolchain-gate.ts) knows one framework and one
 * release of ESPHome; those of another lie in the same directories, and two that install there at once leave half of
 * each. Whoever is alone in a gate becomes the installer before it begins, and whoever sets tools aside as well.
 *
 * Gates come first and installers last, and nobody waits for a gate while it is an installer: so no two wait for each
 * other.
 */
import { join } from 'node:path';

import { acquireAt, type AcquireOptions, type Lease } from './lease.js';
import { lockName } from './subtree-lease.js';

export interface InstallerOptions extends AcquireOptions {
  /** Absolute: where locks are. */
  readonly locksDir: string;
  /** Whose tools may be written to. */
  readonly platforms: readonly string[];
}

export type Installer = Pick<Lease, 'signal' | 'recordBuild' | 'release'>;

/** Waits for each platform's turn. Throws CANCELLED, LOCK_TIMEOUT, STORAGE; then it has none. */
export async function becomeInstaller({
  locksDir,
  platforms,
  ...options
}: InstallerOptions): Promise<Installer> {
  const leases: Lease[] = [];
  async function release(): Promise<void> {
    for (const lease of leases.toReversed()) await lease.release();
  }
  try {
    // In one order for all, so that two who want several do not wait for each other.
    for (const platform of new Set(platforms.toSorted())) {
      leases.push(await acquireAt(join(locksDir, lockName('installer', platform)), options));
    }
  } catch (error) {
    await release();
    throw error;
  }
  return {
    signal: AbortSignal.any(leases.map(({ signal }) => signal)),
    async recordBuild(build) {
      for (const lease of leases) await lease.recordBuild(build);
    },
    release,
  };
}
