/** A lease that a test can take away, openly or so that only the disk knows. */
import { ReceiverError } from '../../src/errors.js';
import type { Lease } from '../../src/locks/lease.js';
import type { Moment } from './harness.js';

export interface FakeLease extends Lease {
  lose(): void;
  /** Somebody else has the lock, and only the disk knows as yet. */
  steal(): void;
}

export function fakeLease(
  fence: number,
  pass: (moment: Moment) => Promise<void>,
  release: () => Promise<void>,
): FakeLease {
  const loss = new AbortController();
  const lose = (): void => loss.abort(new ReceiverError('LOCK_LOST', 'the lock has gone to somebody else'));
  let isStolen = false;
  let releasing: Promise<void> | undefined;
  async function stand(moment?: Moment): Promise<void> {
    if (moment) await pass(moment);
    loss.signal.throwIfAborted();
    if (!isStolen) return;
    lose();
    throw new ReceiverError('FENCED', 'a newer owner of the lock is at work');
  }
  return {
    fence,
    signal: loss.signal,
    lose,
    steal: () => void (isStolen = true),
    confirm: () => stand(),
    recordBuild: (session) => stand(session === null ? 'recordBuild' : 'beforeStart'),
    async publish(act) {
      await stand();
      const result = await act();
      await stand();
      return result;
    },
    release: () => (releasing ??= release()),
  };
}
