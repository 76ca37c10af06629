/**
 * Shows that a receiver is at work, to those who cannot see its process: the next container on the same disk, or
 * another machine. Each receiver keeps one small file and touches it at every heartbeat.
 *
 * Nobody is taken for gone by the clock, which lies after a suspend, but only after he has been watched for as long
 * as a lock may go without a heartbeat.
 */
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { makerOf, temporaryName } from '../disk/temporary.js';

export interface Presence {
  /** Takes the sign away. Never rejects. */
  leave(): Promise<void>;
}

/** Where the receivers of one builds directory show themselves. */
export function presenceDirOf(locksDir: string): string {
  return join(locksDir, 'receivers');
}

/** Begins to show this receiver in `directory`, which is made when missing. Throws system errors. */
export async function showPresence(directory: string, updateMs: number): Promise<Presence> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const mark = join(directory, temporaryName());
  const touch = (): Promise<void> => writeFile(mark, String(Date.now()), { mode: 0o600 });
  await touch();
  // A touch that fails is made up for by the next.
  let touching = Promise.resolve();
  const heartbeat = setInterval(() => {
    touching = touch().catch(() => {});
  }, updateMs);
  heartbeat.unref();
  return {
    async leave() {
      clearInterval(heartbeat);
      await touching;
      await rm(mark, { force: true }).catch(() => {});
    },
  };
}

/** Those of the makers that have given no sign of life for `watchMs` from now. Throws the signal's reason. */
export async function findSilent(
  directory: string,
  makers: ReadonlySet<string>,
  { watchMs, signal }: { readonly watchMs: number; readonly signal: AbortSignal },
): Promise<ReadonlySet<string>> {
  const before = await signsIn(directory);
  await sleep(watchMs, undefined, { signal });
  const after = await signsIn(directory);
  return new Set([...makers].filter((maker) => before.get(maker) === after.get(maker)));
}

/** What there is to see of each maker; any change of it is a sign of life. */
async function signsIn(directory: string): Promise<ReadonlyMap<string, string>> {
  const signs = new Map<string, string>();
  for (const name of (await readdir(directory)).toSorted()) {
    const maker = makerOf(name);
    const seen = maker && (await stat(join(directory, name)).catch(() => null));
    if (maker && seen) signs.set(maker, `${signs.get(maker) ?? ''} ${name} ${seen.mtimeMs}`);
  }
  return signs;
}
