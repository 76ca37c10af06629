/**
 * A fresh directory that cannot be left behind: its removal is registered in the moment of its creation, so a test
 * that fails half-way leaves nothing in the machine's temporary directory.
 */
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** What a test, a suite or `{ after }` of node:test offers: the place to register a clean-up. */
export interface Cleanups {
  after(cleanup: () => Promise<void> | void): void;
}

/** Makes a directory under the system's temporary one (symbolic links resolved) and removes it after the test. */
export async function tempDir(t: Cleanups): Promise<string> {
  const directory = await mkdtemp(join(await realpath(tmpdir()), 'receiver-'));
  t.after(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }));
  return directory;
}
