/**
 * Waiting for a bundle that is still being unpacked, without ever losing one: a bundle that arrives for a job
 * which has been cancelled meanwhile is discarded, and somebody can wait for that.
 */
import { raceAbort } from '../async/abort.js';
import type { BundleStore, StagedBundle } from '../bundles/store.js';
import type { Log } from '../log.js';

export interface BundleWait {
  /** The bundle, or what `intake` rejected with, or the signal's reason as soon as it is aborted. */
  receive(intake: Promise<StagedBundle>, signal: AbortSignal): Promise<StagedBundle>;
  /** Keeps it under its job's id, so that it survives a restart. Null when it cannot be. Never rejects. */
  keep(id: string, staged: StagedBundle): Promise<StagedBundle | null>;
  /** Removes what is kept for a job. Never rejects. */
  remove(id: string): Promise<void>;
  /** Removes a bundle's directory, if anything of it is left. Never rejects. */
  discard(staged: StagedBundle): Promise<void>;
  /** Resolves when every intake that nobody waits for any more has ended and is removed. */
  settled(): Promise<void>;
}

export function createBundleWait(kept: Pick<BundleStore, 'keep' | 'remove'>, log: Log): BundleWait {
  const late = new Set<Promise<void>>();

  async function discard(staged: StagedBundle): Promise<void> {
    await staged.discard().catch((error: unknown) => {
      log.error({ directory: staged.directory, err: error }, 'bundle removal failed');
    });
  }

  function discardLater(intake: Promise<StagedBundle>): void {
    const done = intake.then(discard, () => {}).finally(() => late.delete(done));
    late.add(done);
  }

  return {
    discard,
    keep: async (id, staged) =>
      kept.keep(id, staged).catch((error: unknown) => {
        log.error({ id, err: error }, 'bundle not kept for a restart');
        return null;
      }),
    remove: async (id) =>
      kept.remove(id).catch((error: unknown) => {
        log.error({ id, err: error }, 'bundle removal failed');
      }),
    async receive(intake, signal) {
      try {
        return await raceAbort(intake, signal);
      } catch (error) {
        discardLater(intake);
        throw error;
      }
    },
    async settled() {
      await Promise.all(late);
    },
  };
}
