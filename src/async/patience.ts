/**
 * Tries again what the host's disk refuses for a moment (short because it is one primitive). A volume that is full or
 * read-only for some seconds must not cost a build of ten minutes that has just ended.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import { hostFaultOf } from '../errors.js';
import type { Log } from '../log.js';

const defaultPausesMs = [250, 500, 1_000, 2_000, 4_000, 8_000];

/** Settles as `act` does, at last after 16 s, or earlier when the signal aborts or the error is not the host's. */
export async function patiently<T>(
  act: () => Promise<T>,
  signal: AbortSignal,
  log: Log,
  pausesMs: readonly number[] = defaultPausesMs,
): Promise<T> {
  for (const pauseMs of pausesMs) {
    try {
      return await act();
    } catch (error) {
      if (signal.aborted || hostFaultOf(error) === null) throw error;
      log.warn({ err: error }, 'disk refused the end of a build, trying again');
      await sleep(pauseMs, undefined, { signal }).catch(() => {});
    }
  }
  return act();
}
