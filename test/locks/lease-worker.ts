/** A receiver as far as its lock goes: takes one lease, runs one command under it, and tells how it stands. */
import process from 'node:process';

import { isReceiverError } from '../../src/errors.js';
import { type Lease, acquireLease } from '../../src/locks/lease.js';
import { silentLog } from '../../src/log.js';
import { spawnSession, type SessionProcess } from '../../src/process/session.js';
import { fast } from './helpers.js';
import { testKey } from './keys.js';

export type LeaseQuestion =
  | { readonly do: 'hello' | 'release' | 'state' }
  | {
      readonly do: 'acquire';
      readonly locksDir: string;
      readonly reason: string;
      readonly deadlineMs?: number;
    }
  | { readonly do: 'build'; readonly command: readonly [string, ...string[]] };

export interface LeaseAnswer {
  readonly error?: string;
  readonly fence?: number;
  readonly at: number;
  readonly lost?: boolean;
  readonly blockedBy?: readonly string[];
  readonly build?: SessionProcess['identity'];
}

let lease: Lease | undefined;
let session: SessionProcess | undefined;
const blockedBy: string[] = [];

async function answer(question: LeaseQuestion): Promise<LeaseAnswer> {
  switch (question.do) {
    case 'hello':
      break;
    case 'acquire':
      blockedBy.length = 0;
      lease = await acquireLease({
        ...{ locksDir: question.locksDir, key: testKey, reason: question.reason },
        ...{ deadlineMs: question.deadlineMs, timing: fast, log: silentLog },
        onBlocked: ({ reason }) => void blockedBy.push(reason),
      });
      break;
    case 'build':
      session = await spawnSession(question.command, {
        ...{ cwd: '/', env: { PATH: process.env['PATH'] ?? '' }, log: silentLog },
        onOutput() {},
        beforeStart: (identity) => lease!.recordBuild(identity),
      });
      break;
    case 'release':
      await session?.stop({ graceMs: 0 });
      await lease?.release();
      session = lease = undefined;
      break;
    case 'state':
      break;
  }
  return {
    ...{ at: Date.now(), blockedBy },
    ...(lease && { fence: lease.fence, lost: isReceiverError(lease.signal.reason, 'LOCK_LOST') }),
    ...(session && { build: session.identity }),
  };
}

process.on('message', (question: LeaseQuestion) => {
  answer(question).then(
    (result) => process.send!(result),
    (error: unknown) =>
      process.send!({ error: isReceiverError(error) ? error.code : String(error), at: Date.now() }),
  );
});
