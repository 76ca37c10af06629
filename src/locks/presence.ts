/**
 * Shows that a receiver runs to those that cannot see its process: the next container on the same disk, or another
 * machine. Each receiver keeps one small file and touches it at every heartbeat. It counts as gone not by the clock,
 * which is wrong after a suspend, but only after watching it for as long as a lock can be without a heartbeat.
 */
import { readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { makeDirectory } from '../disk/atomic-write.js';
import { makerOf, temporaryName } from '../disk/names.js';
import { isDiskFull } from '../errors.js';

/** The presence directory of the receivers of one builds directory. */
export function presenceDirOf(locksDir: string): string {
  return join(locksDir, 'receivers');
}

/** Shows this receiver in `directory`, which is created if missing. Throws system errors. */
export async function showPresence(directory: string, updateMs: number) {
  const mark = join(directory, temporaryName());
  async function touch(): Promise<void> {
    // If somebody removes it while the receiver runs, others must not conclude that the receiver has ended.
    await makeDirectory(directory);
    await writeFile(mark, String(Date.now()), { mode: 0o600 });
  }
  // The next touch makes up for a failed one, for example on a full volume where this receiver is about to free space.
  await touch().catch((error: unknown) => {
    if (!isDiskFull(error)) throw error;
  });
  let touching = Promise.resolve();
  const heartbeat = setInterval(() => {
    touching = touch().catch(() => {});
  }, updateMs);
  heartbeat.unref();
  return {
    /** Removes the file. Never rejects. */
    async leave(): Promise<void> {
      clearInterval(heartbeat);
      await touching;
      await rm(mark, { force: true }).catch(() => {});
    },
  };
}

/** The makers that show no sign of life for `watchMs` from now. Throws the signal's reason. */
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

/** The names and times of each maker's files; any change is a sign of life. */
async function signsIn(directory: string): Promise<ReadonlyMap<string, string>> {
  const signs = new Map<string, string>();
  for (const name of (await readdir(directory)).toSorted()) {
    const maker = makerOf(name);
    const seen = maker && (await stat(join(directory, name)).catch(() => null));
    if (maker && seen) signs.set(maker, `${signs.get(maker) ?? ''} ${name} ${seen.mtimeMs}`);
  }
  return signs;
}
