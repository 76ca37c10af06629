/** Tries one lock at a given moment, with the bare library or with our layer, and tells whether it has it. */
import { join } from 'node:path';
import process from 'node:process';

import lockfile from 'proper-lockfile';

import { tryFileLock } from '../../src/locks/file-lock.js';

export type RaceQuestion =
  | { readonly do: 'hello' | 'release' }
  | { readonly do: 'race'; readonly directory: string; readonly at: number; readonly bare: boolean };

let release: (() => Promise<void>) | undefined;

async function answer(question: RaceQuestion): Promise<boolean> {
  if (question.do === 'race') {
    const { directory, at, bare } = question;
    await new Promise((resolve) => setTimeout(resolve, at - Date.now()));
    release = bare ? await tryBare(directory) : (await tryGuarded(directory))?.release;
    return release !== undefined;
  }
  await release?.().catch(() => {});
  release = undefined;
  return true;
}

const timing = { staleMs: 10_000, updateMs: 2_500 };

function tryGuarded(directory: string): ReturnType<typeof tryFileLock> {
  return tryFileLock(directory, { ...timing, onLost() {} });
}

async function tryBare(directory: string): Promise<(() => Promise<void>) | undefined> {
  try {
    return await lockfile.lock(directory, {
      lockfilePath: join(directory, 'lock'),
      realpath: false,
      retries: 0,
      stale: timing.staleMs,
      update: timing.updateMs,
      onCompromised() {},
    });
  } catch {
    return undefined;
  }
}

process.on('message', (question: RaceQuestion) => {
  void answer(question).then((result) => process.send!(result));
});
