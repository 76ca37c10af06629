/**
 * The directory in which one environment is made, and who may take it away: `ready` names the environment that
 * counts, `used` holds when it was last asked for, and the directory of its lock holds a mark of each process that is
 * using it. A modification time would not tell: compiling with an environment changes nothing in it.
 */
import { readFile, readdir, readlink, realpath, rename, rm, rmdir, symlink } from 'node:fs/promises';
import { basename, join } from 'node:path';

import { writeAtomic } from '../disk/atomic-write.js';
import { removeTree } from '../disk/remove.js';
import { temporaryName } from '../disk/temporary.js';
import { systemCode } from '../errors.js';
import type { Lease, LockTiming } from '../locks/lease.js';
import { lockName } from '../locks/subtree-lease.js';
import { addUser, hasUsers, type ToolUser } from '../locks/toolchain-users.js';

export interface Place {
  readonly directory: string;
  readonly lockDir: string;
}

export function placeOf({
  venvsDir,
  locksDir,
  name,
}: Readonly<Record<'venvsDir' | 'locksDir' | 'name', string>>): Place {
  return { directory: join(venvsDir, name), lockDir: join(locksDir, lockName('venv', name)) };
}

/** The environment that counts, with links resolved; null when there is none. Throws other system errors. */
export async function readyIn({ directory }: Place): Promise<string | null> {
  return realpath(join(directory, 'ready')).catch(nullIfMissing);
}

/** To be called under the lease. Readers see the old environment or the new one. */
export async function markReady({ directory }: Place, venv: string): Promise<void> {
  const link = join(directory, temporaryName());
  await symlink(basename(venv), link);
  await rename(link, join(directory, 'ready'));
}

/** Shows that this process uses the environment, from before it was looked for: see {@link removeUnused}. */
export async function useOf({ lockDir }: Place, timing: LockTiming): Promise<ToolUser> {
  return addUser(lockDir, timing);
}

export async function isInUse({ lockDir }: Place, { staleMs }: LockTiming): Promise<boolean> {
  return (await hasUsers(lockDir, staleMs).catch(nullIfMissing)) ?? false;
}

/** Where {@link stampUse} writes: milliseconds since 1970, in digits. */
export function usedFile({ directory }: Place): string {
  return join(directory, 'used');
}

/** Notes that the environment was used at `now` (milliseconds since 1970). The directory must exist. */
export async function stampUse(place: Place, now = Date.now()): Promise<void> {
  await writeAtomic(usedFile(place), String(now));
}

/** When it was last used; 0 when that is not known. A time to come counts as now, for the clock was wrong then. */
export async function lastUse(place: Place): Promise<number> {
  const time = Number(await readFile(usedFile(place), 'utf8').catch(() => ''));
  return Number.isFinite(time) ? Math.min(time, Date.now()) : 0;
}

/**
 * Removes the environment unless somebody uses it; false then. To be called under the lease. Who begins to use it
 * shows that first and looks for `ready` afterwards, so he is either seen here, or does not find it any more.
 */
export async function removeUnused(place: Place, lease: Lease, timing: LockTiming): Promise<boolean> {
  const link = join(place.directory, 'ready');
  return lease.publish(async () => {
    const target = await readlink(link).catch(nullIfMissing);
    await rm(link, { force: true });
    if (await isInUse(place, timing)) {
      if (target !== null) await symlink(target, link);
      return false;
    }
    await emptyPlace(place);
    await removeIfEmpty(place);
    return true;
  });
}

/** The link goes first: it must never point to half. */
export async function emptyPlace({ directory }: Place): Promise<void> {
  const names = await readdir(directory);
  await rm(join(directory, 'ready'), { force: true });
  for (const name of names) await removeTree(join(directory, name));
}

export async function removeIfEmpty({ directory }: Place): Promise<void> {
  await rmdir(directory).catch((error: unknown) => {
    if (!['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(systemCode(error) ?? '')) throw error;
  });
}

function nullIfMissing(error: unknown): null {
  if (systemCode(error) === 'ENOENT') return null;
  throw error;
}
