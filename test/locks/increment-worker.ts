/**
 * Adds one to a counter of its own, so many times, in a state that all workers share and publish whole through
 * their leases. Each success is noted in the worker's own log after it was published, so the log never promises
 * more than the state must hold.
 */
import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';

import { isReceiverError } from '../../src/errors.js';
import { acquireLease } from '../../src/locks/lease.js';
import { silentLog } from '../../src/log.js';
import { fast } from './helpers.js';
import { noteSuccess, readState, successesOf, type IncrementTask } from './increment-state.js';
import { testKey } from './keys.js';

async function incrementOnce({ id, locksDir, stateDir }: IncrementTask): Promise<void> {
  const lease = await acquireLease({
    locksDir,
    key: testKey,
    reason: `worker ${id}`,
    log: silentLog,
    timing: fast,
  });
  try {
    const counts = await readState(stateDir);
    await sleep(5);
    const temporary = join(stateDir, `new-${process.pid}`);
    await lease.publish(async () => {
      await writeFile(temporary, JSON.stringify({ ...counts, [id]: (counts[id] ?? 0) + 1 }));
      await rename(temporary, join(stateDir, `state-${lease.fence}`));
    });
    noteSuccess(stateDir, id);
    await rm(join(stateDir, `state-${lease.fence - 20}`), { force: true });
  } catch (error) {
    if (!isReceiverError(error, 'FENCED') && !isReceiverError(error, 'LOCK_LOST')) throw error;
  } finally {
    await lease.release();
  }
}

process.on('message', (task: IncrementTask) => {
  const work = async (): Promise<void> => {
    while (successesOf(task.stateDir, task.id) < task.count) await incrementOnce(task);
  };
  work().then(
    () => process.send!('done'),
    (error: unknown) => process.send!(String(error)),
  );
});
