/**
 * Small files that are created once and kept, such as the private key. An unusable file is renamed and never overwritten:
 * it can be the only copy of a key that peers have pinned, and a person can restore it. An unreadable file is an error,
 * because a wrong owner or a failing disk must not cost every pairing.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';

import { createAtomic } from '../disk/atomic-write.js';
import { systemCode } from '../errors.js';
import type { Log } from '../log.js';

export interface KeptFile<T> {
  /** For the log: "the identity key". */
  readonly what: string;
  /** Returns undefined for unusable content. */
  parse(content: Buffer): T | undefined;
  /** Returns new content, which `parse` must accept. */
  create(): Buffer;
}

/** Reads the file, or creates it (mode 0600, durable) if it is missing or unusable. Throws system errors. */
export async function loadOrCreate<T>(file: string, kept: KeptFile<T>, log: Log): Promise<T> {
  const stored = await readIfAny(file);
  const value = stored && kept.parse(stored);
  if (value !== undefined) return value;
  if (stored) {
    const aside = asideName(file);
    await rename(file, aside);
    log.warn({ file, aside }, `${kept.what} was unusable: it is set aside and replaced by a new one`);
  }
  const created = kept.create();
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  if (await createAtomic(file, created, { mode: 0o600 })) return kept.parse(created) as T;
  // Another receiver on this directory has just created the file, and both act as one server.
  return loadOrCreate(file, kept, log);
}

/** The content, or undefined if the file is missing. */
export async function readIfAny(file: string): Promise<Buffer | undefined> {
  try {
    return await readFile(file);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** A unique name beside the file. */
export function asideName(file: string): string {
  return `${file}.unusable-${randomUUID()}`;
}
