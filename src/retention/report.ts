/**
 * What was removed, or would be, and what had to stay: an operator who frees a disk must not have to guess why a tree is
 * still there.
 */
import type { DashboardId } from '../paths/index.js';

/** What can go. */
export type Item =
  /** All that was built and learnt for one device of a peer. */
  | { readonly kind: 'device'; readonly dashboardId: DashboardId; readonly device: string }
  /** The packed result of a job, with its record and log. */
  | { readonly kind: 'result'; readonly jobId: string }
  /** An installed release of ESPHome. */
  | { readonly kind: 'version'; readonly version: string }
  /** Compilers and libraries that devices share. */
  | { readonly kind: 'toolchain'; readonly toolchain: string };

export interface Removed {
  readonly item: Item;
  /** Of the volume; 0 where nobody has measured it. */
  readonly bytes: number;
}

export interface Left {
  /** The item, or the place of something that is none, relative to the builds directory. */
  readonly what: Item | { readonly kind: 'strange'; readonly place: string };
  /** For people; names no place of this machine. */
  readonly why: string;
}

export interface Report {
  /** Whether nothing was touched. */
  readonly dryRun: boolean;
  readonly removed: readonly Removed[];
  readonly left: readonly Left[];
  /** The sum over `removed`. */
  readonly freedBytes: number;
}

/** One report of several. */
export function joined(dryRun: boolean, parts: readonly Pick<Report, 'removed' | 'left'>[]): Report {
  const removed = parts.flatMap((part) => part.removed);
  const left = parts.flatMap((part) => part.left);
  return Object.freeze({
    dryRun,
    removed,
    left,
    freedBytes: bytesOfAll(removed),
  });
}

export function bytesOfAll(removed: readonly Removed[]): number {
  return removed.reduce((sum, { bytes }) => sum + bytes, 0);
}
