/**
 * How long things are kept and how much room they may take. Every limit can be changed while the receiver runs, and then
 * holds at once.
 */
import * as z from 'zod';

import { ReceiverError } from '../errors.js';

export interface RetentionLimits {
  /**
   * After as long without a build, a download or a look of the host's, what was built for a device goes, in
   * milliseconds. From 3,600,000 (an hour) to 2,592,000,000 (30 days). Default: 86,400,000 (a day).
   */
  readonly buildTtlMs: number;
  /** Most room for the builds of all peers, in bytes of the volume; null for no limit. Default: null. */
  readonly maxBuildBytes: number | null;
  /** Most room for the builds of one peer, in bytes of the volume; null for no limit. Default: null. */
  readonly maxBuildBytesPerPeer: number | null;
  /** Most room for results, in bytes; null for no limit. Default: null. */
  readonly maxResultBytes: number | null;
  /**
   * After as long without a build that used them, installed releases of ESPHome and shared toolchains go, in
   * milliseconds. From 86,400,000 (a day) to 31,536,000,000 (a year). Default: 2,592,000,000 (30 days).
   */
  readonly toolTtlMs: number;
  /**
   * Most room for installed releases and toolchains together, in bytes of the volume; null for no limit. Caches do not
   * count: that of the compiler has a limit of its own (ccache's, 5 GB). Default: null.
   */
  readonly maxToolBytes: number | null;
}

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const bytes = z
  .int()
  .min(0)
  .max(2 ** 50)
  .nullable();

export const limitsShape = {
  buildTtlMs: z
    .int()
    .min(hourMs)
    .max(30 * dayMs),
  maxBuildBytes: bytes,
  maxBuildBytesPerPeer: bytes,
  maxResultBytes: bytes,
  toolTtlMs: z
    .int()
    .min(dayMs)
    .max(365 * dayMs),
  maxToolBytes: bytes,
};

export const defaultLimits: RetentionLimits = Object.freeze({
  buildTtlMs: dayMs,
  maxBuildBytes: null,
  maxBuildBytesPerPeer: null,
  maxResultBytes: null,
  toolTtlMs: 30 * dayMs,
  maxToolBytes: null,
});

const schema = z.strictObject(limitsShape).partial();

/** The limits with some of them changed. Throws `OPTIONS`, naming the field. */
export function changedLimits(limits: RetentionLimits, changes: unknown): RetentionLimits {
  const read = schema.safeParse(changes);
  if (!read.success) throw new ReceiverError('OPTIONS', z.prettifyError(read.error));
  const given = Object.entries(read.data).filter(([, value]) => value !== undefined);
  return Object.freeze({ ...limits, ...Object.fromEntries(given) });
}
