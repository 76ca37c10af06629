/**
 * Takes one device's directory away, whole: moved out of sight under the lease, deleted afterwards. A crash in between
 * leaves it in the trash, which the next start empties; half a directory never stays under its name.
 */
import { rmdir } from 'node:fs/promises';
import { dirname } from 'node:path';

import { assertUnlinked } from '../disk/contained.js';
import { moveToTrash, removeTree } from '../disk/remove.js';
import type { Lease } from '../locks/lease.js';
import type { Layout, RemoteKey } from '../paths/index.js';
import type { DeviceBook } from './device-book.js';

export interface LeaseOfDevice {
  readonly publish: Lease['publish'];
}

/** Runs the work as the owner of one device's directory. Throws `LOCK_TIMEOUT` when it is not free in time. */
export type UnderLease = <T>(
  key: RemoteKey,
  reason: string,
  work: (lease: LeaseOfDevice) => Promise<T>,
  deadlineMs?: number,
) => Promise<T>;

export interface RemovalDeps {
  readonly layout: Layout;
  readonly book: Pick<DeviceBook, 'forget'>;
  readonly underLease: UnderLease;
  /** When it aborts, what is out of sight already stays in the trash, and the next start empties that. */
  readonly signal?: AbortSignal | undefined;
}

export interface Removal {
  /** For those who wait for the device, and for the log. */
  readonly reason: string;
  /** How long to wait for a build to end, in milliseconds. */
  readonly deadlineMs?: number;
  /** Asked under the lease, when nobody can use the device any more: whether it is still to go. */
  readonly isWanted?: () => boolean;
}

/**
 * False when it was not wanted any more, or nothing was there. What lies at the device's place goes whatever it is; a
 * link is taken away itself. Throws `LOCK_TIMEOUT`, `TRAVERSAL` for a peer's directory that is a link, system errors.
 */
export async function removeDevice(key: RemoteKey, removal: Removal, deps: RemovalDeps): Promise<boolean> {
  const { layout, book, underLease, signal } = deps;
  const subtree = layout.subtree(key);
  const trashed = await underLease(
    key,
    removal.reason,
    async (lease) => {
      if (removal.isWanted?.() === false) return null;
      await assertUnlinked(layout.buildsDir, dirname(subtree));
      const moved = await lease.publish(() => moveToTrash(subtree, layout.trashDir));
      await book.forget(key);
      return moved;
    },
    removal.deadlineMs,
  );
  if (trashed === null) return false;
  await rmdir(dirname(subtree)).catch(() => {});
  await emptyTrash([trashed], signal);
  return true;
}

/** Deletes what lies in the trash; what is left when the signal aborts, the next start deletes. Throws system errors. */
export async function emptyTrash(trashed: readonly string[], signal: AbortSignal | undefined): Promise<void> {
  try {
    for (const path of trashed) await removeTree(path, signal);
  } catch (error) {
    if (signal?.aborted !== true) throw error;
  }
}
