/**
 * Small files that are made once and kept for good, such as the private key.
 *
 * Content that cannot be used is set aside under a name of its own and never overwritten: it may be the only copy
 * of a key to which peers are bound, and a person can still put it back. A file that cannot be *read* is an error
 * instead, since a wrong owner or a failing disk must not cost every pairing.
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
  /** The value in the content, or undefined when the content is unusable. */
  parse(content: Buffer): T | undefined;
  /** New content, which `parse` must accept. */
  create(): Buffer;
}

/** Reads the file, or makes it (mode 0600, durable) where there is none or an unusable one. Throws system errors. */
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
  // Another receiver has started at the same moment: both are one server, so its content counts.
  return loadOrCreate(file, kept, log);
}

/** The content, or undefined when there is no such file. */
export async function readIfAny(file: string): Promise<Buffer | undefined> {
  try {
    return await readFile(file);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** A sibling name that no other file has. */
export function asideName(file: string): string {
  return `${file}.unusable-${randomUUID()}`;
}
