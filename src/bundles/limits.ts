/**
 * How much a bundle may be and how long it may take, once and with names. A few kilobytes of gzip can stand for a whole disk or for a
 * million inodes, so everything that grows while unpacking has a limit that is checked while it grows.
 */

import { maxBundleBytes } from '../protocol/transfer.js';

export interface BundleLimits {
  /** The archive as it arrives, in bytes; checked when it is announced. Default, and the most: 128 MiB. */
  readonly packedBytes: number;
  /** Sum of the files' sizes, in bytes. Default: 500 MiB, as ESPHome and Device Builder have it. */
  readonly unpackedBytes: number;
  /** Members of the archive, and also files and directories of the tree that it makes. Default: 20,000. */
  readonly members: number;
  /** Names in one path. Default: 32. */
  readonly depth: number;
  /** One name, in bytes of UTF-8. Default: 200. */
  readonly segmentBytes: number;
  /** One path, in bytes of UTF-8. Default: 1,024. */
  readonly pathBytes: number;
  /** Unpacked bytes for each compressed one, once over {@link BundleLimits.ratioFreeBytes}. Default: 200. */
  readonly ratio: number;
  /** Unpacked bytes up to which the ratio does not count: a small YAML may well repeat itself. Default: 32 MiB. */
  readonly ratioFreeBytes: number;
  /** `manifest.json`, in bytes. Default: 1 MiB, as ESPHome has it. */
  readonly manifestBytes: number;
  /** From the announcement to the complete tree, in milliseconds. Default: 900,000 (15 minutes). */
  readonly uploadTimeoutMs: number;
}

const mebibyte = 1024 * 1024;

export const defaultBundleLimits: BundleLimits = Object.freeze({
  packedBytes: maxBundleBytes,
  unpackedBytes: 500 * mebibyte,
  members: 20_000,
  depth: 32,
  segmentBytes: 200,
  pathBytes: 1_024,
  ratio: 200,
  ratioFreeBytes: 32 * mebibyte,
  manifestBytes: mebibyte,
  uploadTimeoutMs: 900_000,
});

/** Headers, padding and long names: what the stream may hold for each member beside its bytes. */
const overheadBytes = 4_096;

/** The most bytes that the unpacked stream may have, tar's own included. */
export function streamBytes(limits: BundleLimits): number {
  return limits.unpackedBytes + (limits.members + 8) * overheadBytes;
}
