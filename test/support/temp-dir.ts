/**
 * A fresh directory that cannot be left behind: its removal is registered when it is created, so a test
 * that fails half-way leaves nothing in the system's temporary directory.
 */
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Where cleanups are registered: a test, a suite or `{ after }` of node:test. */
export interface Cleanups {
  after(cleanup: () => Promise<void> | void): void;
}

/** Creates a directory below the system's temporary one (links resolved) and removes it after the test. */
export async function tempDir(t: Cleanups): Promise<string> {
  const directory = await mkdtemp(join(await realpath(tmpdir()), 'receiver-'));
  t.after(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }));
  return directory;
}
