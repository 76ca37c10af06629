/**
 * Finds a Python that can make a virtual environment for ESPHome.
 *
 * Only an interpreter that runs counts: PATH can contain a pyenv shim, which refuses to run, for every version ever
 * installed, and Debian's python3 comes without `venv`. When none runs, the error says what was tried and what to
 * install.
 */
import { execFile } from 'node:child_process';
import { open, readdir } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, delimiter, isAbsolute, join } from 'node:path';

import { ReceiverError } from '../errors.js';
import { isExecutable } from '../process/machine.js';

/** ESPHome 2026.10 requires `>=3.12.0,<3.15`. Newest first. */
const minors = [14, 13, 12] as const;
const answerTimeoutMs = 10_000;
const refusalLength = 300;
const headBytes = 512;

export interface Python {
  /** Absolute. */
  readonly path: string;
  /** As in "3.13.0". */
  readonly version: string;
}

/**
 * Returns the first interpreter that runs. Tries `first`, then `python3.14`, `python3.13`, `python3.12` and `python3`
 * in every directory of PATH, then pyenv's versions (`$PYENV_ROOT`, else `~/.pyenv`), newest first. Throws PROVISION,
 * with the refused candidates in the facts, when none runs; CANCELLED on abort.
 */
export async function findPython(
  options: {
    readonly env?: Readonly<Record<string, string | undefined>>;
    readonly first?: readonly string[];
    readonly signal?: AbortSignal | undefined;
  } = {},
): Promise<Python> {
  const { env = process.env, first = [], signal } = options;
  const refused: string[] = [];
  for (const path of [...first, ...onPath(env), ...(await ofPyenv(env))]) {
    if (!(await isExecutable(path))) continue;
    const answer = await probe(path, env, signal);
    if (signal?.aborted) throw new ReceiverError('CANCELLED', 'the search for a Python was cancelled');
    if ('version' in answer) return { path, version: answer.version };
    refused.push(`${path}: ${answer.refusal}`);
  }
  throw new ReceiverError(
    'PROVISION',
    `found no Python 3.${minors.at(-1)} to 3.${minors[0]} with the venv module, which ESPHome needs. Install one ` +
      `(Debian and Ubuntu: apt install python3 python3-venv; macOS: brew install python; pyenv: pyenv install 3.13)`,
    { refused },
  );
}

/**
 * The Python that runs a command, from its script's first line; empty if that names none. PlatformIO's directory
 * supports one Python at a time: with another, ESPHome 2026.10 removes everything installed there.
 */
export async function pythonOf([program]: readonly [string, ...string[]]): Promise<string[]> {
  if (basename(program).startsWith('python')) return [program];
  const handle = await open(program).catch(() => null);
  if (handle === null) return [];
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(headBytes), 0, headBytes, 0);
    const head = buffer.toString('utf8', 0, bytesRead);
    const path = /^#!(\/[^\s]+\/python[0-9.]*)\n/.exec(head)?.[1];
    return path === undefined ? [] : [path];
  } finally {
    await handle.close();
  }
}

function onPath(env: Readonly<Record<string, string | undefined>>): string[] {
  const directories = (env.PATH ?? '').split(delimiter).filter(isAbsolute);
  const names = [...minors.map((minor) => `python3.${minor}`), 'python3'];
  return names.flatMap((name) => directories.map((directory) => join(directory, name)));
}

async function ofPyenv(env: Readonly<Record<string, string | undefined>>): Promise<string[]> {
  const versions = join(env.PYENV_ROOT || join(env.HOME || homedir(), '.pyenv'), 'versions');
  const installed = await readdir(versions).catch(() => []);
  return minors.flatMap((minor) =>
    installed
      .filter((name) => name.startsWith(`3.${minor}.`))
      .toSorted((a, b) => b.localeCompare(a, 'en', { numeric: true }))
      .map((name) => join(versions, name, 'bin', 'python3')),
  );
}

/** `python -m venv` needs `ensurepip`, which Debian packages separately. */
const question = 'import sys, venv, ensurepip; print("%d.%d.%d" % sys.version_info[:3])';

async function probe(
  path: string,
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal | undefined,
): Promise<{ readonly version: string } | { readonly refusal: string }> {
  return new Promise((resolve) => {
    const options = { env, timeout: answerTimeoutMs, ...(signal ? { signal } : {}) };
    execFile(path, ['-I', '-c', question], options, (error, stdout, stderr) => {
      const version = stdout.trim();
      if (error) resolve({ refusal: stderr.trim().slice(-refusalLength) || error.message });
      else if (!minors.some((minor) => version.startsWith(`3.${minor}.`)))
        resolve({ refusal: `is ${version}` });
      else resolve({ version });
    });
  });
}
