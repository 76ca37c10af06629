/**
 * Small files that are created once and kept, such as the private key. What peers have pinned is never replaced silently:
 * an unusable file can be the only copy, and a person can restore it. An unreadable file is an error, because a wrong
 * owner or a failing disk must not cost every pairing.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync, renameSync } from 'node:fs';
import { lstat, readFile } from 'node:fs/promises';
import { basename, dirname } from 'node:path';

import { createAtomic, makeDirectory } from '../disk/atomic-write.js';
import { isThere } from '../disk/open-regular.js';
import { systemCode } from '../errors.js';
import type { Log } from '../log.js';

export interface KeptFile<T> {
  /** Returns undefined for unusable content. */
  parse(content: Buffer): T | undefined;
  /** Returns new content, which `parse` must accept. */
  create(): Buffer;
  /** Throws unless a new file can take the place of this content, or of a missing file. */
  assertReplaceable(content: Buffer | undefined): Promise<void>;
}

/** Reads the file, or creates it (mode 0600, durable) if it is missing or unusable. Throws system errors. */
export async function loadOrCreate<T>(file: string, kept: KeptFile<T>, log: Log): Promise<T> {
  for (;;) {
    const stored = await readIfAny(file);
    const value = stored && kept.parse(stored);
    if (value !== undefined) return value;
    await kept.assertReplaceable(stored);
    // Another receiver on this directory could have replaced or created it meanwhile, and both act as one server.
    if (stored && !setAside(file, stored, log)) continue;
    const created = kept.create();
    await makeParent(file);
    if (await createAtomic(file, created, { mode: 0o600 })) return kept.parse(created) as T;
  }
}

/** Writes the file again if a person or a cleanup program has removed it. Throws system errors. */
export async function restoreIfGone(file: string, content: Uint8Array, log: Log): Promise<void> {
  if (await isThere(file)) return;
  await makeParent(file);
  if (await createAtomic(file, content, { mode: 0o600 })) warnRestored(file, log);
}

export function warnRestored(file: string, log: Log): void {
  log.warn({ file }, 'missing state file written again');
}

export async function makeParent(file: string): Promise<void> {
  await makeDirectory(dirname(file));
}

/**
 * The content, or undefined if the file is missing. Empty for a link to a missing file, which must not count as missing.
 */
export async function readIfAny(file: string): Promise<Buffer | undefined> {
  try {
    return await readFile(file);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
  }
  const isLink = await lstat(file).then(
    (found) => found.isSymbolicLink(),
    () => false,
  );
  return isLink ? Buffer.alloc(0) : undefined;
}

/** Renames the file if it still has this content. False if not: another receiver was faster. */
export function setAside(file: string, content: Buffer, log: Log): boolean {
  // In one turn: a receiver that was slower would otherwise set aside what another has just written.
  if (!readNow(file).equals(content)) return false;
  const aside = asideName(file);
  try {
    renameSync(file, aside);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false;
    throw error;
  }
  log.warn({ file, aside }, 'unusable state file set aside');
  return true;
}

function readNow(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return Buffer.alloc(0);
    throw error;
  }
}

/** A unique name beside the file. */
export function asideName(file: string): string {
  return `${file}.unusable-${randomUUID()}`;
}

/** What an operator can do about a refused start, for the error message. */
export function wayOut(file: string, loss: string): string {
  return `restore ${basename(file)} from a backup, or start anew with the option newIdentity (--new-identity): ${loss}`;
}
