/** Builds again and again under its lease, as a receiver does, until it is told to stop. */
import process from 'node:process';

import { isReceiverError } from '../../src/errors.js';
import { acquireLease } from '../../src/locks/lease.js';
import { silentLog } from '../../src/log.js';
import { spawnSession } from '../../src/process/session.js';
import { fast } from './helpers.js';
import { testKey } from './keys.js';

export interface BuildTask {
  readonly locksDir: string;
  readonly command: readonly [string, ...string[]];
  readonly builds: number;
}

/** True when the build ran to its end under a lease that still stood. */
async function buildOnce({ locksDir, command }: BuildTask): Promise<boolean> {
  const lease = await acquireLease({
    locksDir,
    key: testKey,
    reason: 'a build',
    log: silentLog,
    timing: fast,
  });
  try {
    const session = await spawnSession(command, {
      ...{ cwd: '/', env: { PATH: process.env['PATH'] ?? '' }, log: silentLog },
      onOutput() {},
      beforeStart: (identity) => lease.recordBuild(identity),
    });
    const stop = (): void => void session.stop({ graceMs: 100 });
    lease.signal.addEventListener('abort', stop);
    const { code } = await session.exited;
    await session.settled();
    await lease.confirm();
    return code === 0;
  } catch (error) {
    if (!isReceiverError(error, 'FENCED') && !isReceiverError(error, 'LOCK_LOST')) throw error;
    return false;
  } finally {
    await lease.release();
  }
}

process.on('message', (task: BuildTask) => {
  const work = async (): Promise<void> => {
    for (let done = 0; done < task.builds;) if (await buildOnce(task)) done += 1;
  };
  work().then(
    () => process.send!('done'),
    (error: unknown) => process.send!(String(error)),
  );
});
