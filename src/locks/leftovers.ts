/**
 * Removes what processes have left that are gone: staging, trash, half-written files. Whose it is stands in its name;
 * of what names no process somebody else knows whether it is needed. What a living process uses is not touched, be it the process of another receiver on the same disk.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { removeTree } from '../disk/remove.js';
import { makerOf, standingOf } from '../disk/temporary.js';
import { messageOf } from '../errors.js';
import type { Log } from '../log.js';
import { findSilent } from './presence.js';

export interface LeftoverOptions {
  /** Directories in which everything is temporary, unless it is needed. They must exist, as those below. */
  readonly temporary: readonly string[];
  /** Whether what has this name, which is none of a process's, must stay. */
  readonly isNeeded: (name: string) => Promise<boolean>;
  /** Directories that hold temporary files among others. */
  readonly mixed: readonly string[];
  /** Where receivers show that they are at work. */
  readonly presenceDir: string;
  /** How long a receiver whose process cannot be seen may be silent before it counts as gone. */
  readonly watchMs: number;
  readonly signal: AbortSignal;
  readonly log: Log;
}

interface Entry {
  readonly name: string;
  readonly path: string;
  readonly maker: string | null;
}

/** Takes no longer than `watchMs` and the removals. Throws the signal's reason and system errors. */
export async function removeLeftovers(options: LeftoverOptions): Promise<void> {
  const { temporary, mixed, isNeeded, presenceDir, watchMs, signal } = options;
  const named = (await entriesOf(mixed)).filter(({ maker }) => maker !== null);
  const unknown: Entry[] = [];
  for (const entry of [...(await entriesOf(temporary)), ...named]) {
    const standing = entry.maker === null ? 'gone' : standingOf(entry.maker);
    if (standing === 'gone' && !(entry.maker === null && (await isNeeded(entry.name)))) {
      await remove(entry, options);
    }
    if (standing === 'unknown') unknown.push(entry);
  }
  if (unknown.length === 0) return;
  const makers = new Set(unknown.map(({ maker }) => maker ?? ''));
  const silent = await findSilent(presenceDir, makers, { watchMs, signal });
  for (const entry of unknown) if (silent.has(entry.maker ?? '')) await remove(entry, options);
}

async function entriesOf(directories: readonly string[]): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (const directory of directories) {
    const names = await readdir(directory);
    entries.push(...names.map((name) => ({ name, path: join(directory, name), maker: makerOf(name) })));
  }
  return entries;
}

/** One that cannot be removed does not save the others. */
async function remove({ path }: Entry, { signal, log }: LeftoverOptions): Promise<void> {
  signal.throwIfAborted();
  try {
    await removeTree(path);
    log.info({ path }, 'what a crash has left was removed');
  } catch (error) {
    log.warn({ path, error: messageOf(error) }, 'what a crash has left cannot be removed');
  }
}
