/**
 * Makes a Python environment with one thing installed in it, once, for all who ask for it.
 *
 * Each attempt fills a directory with a fresh name, and a symbolic link `ready`, made last and exclusively, says
 * which one counts. So a half-made environment is never used, whatever interrupted it, and an environment is never
 * moved (its scripts hold absolute paths). A lock lets the second process wait instead of installing too; should
 * the lock go stale, work is done twice but nothing is mixed.
 */
import { mkdir, mkdtemp, readdir, realpath, rm, symlink } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, isAbsolute, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import { ReceiverError, isReceiverError, systemCode } from '../errors.js';
import type { Log } from '../log.js';
import { findPython } from './python.js';
import { runStep } from './step.js';

/** As Device Builder 1.26 has them. */
const makeTimeoutMs = 120_000;
const installTimeoutMs = 900_000;
const checkTimeoutMs = 60_000;

/** A lock whose owner has not renewed it for this long belongs to a dead process. */
const lockStaleMs = 15_000;
const lockRenewMs = 3_000;
const lockRetryMs = 250;

export interface PlaceOptions {
  /** Absolute. `$XDG_CACHE_HOME/koa-esphome-receiver`, or the same in `~/.cache`, unless said. */
  readonly cacheDir?: string;
  /** A Python 3.12 to 3.14 to make environments with; looked for unless said. */
  readonly python?: string;
  /** Gets pip's output, each line with its end. */
  readonly onLine?: (line: string) => void;
  readonly log?: Log;
  readonly signal?: AbortSignal;
}

export interface VenvOptions extends PlaceOptions {
  /** A plain file name: the directory below `cacheDir`. */
  readonly name: string;
  /** What pip installs. */
  readonly requirement: string;
  /** A program of the environment with arguments, which must end with 0 and print the word `expect`. */
  readonly check: readonly [string, ...string[]];
  readonly expect: string;
}

/**
 * An environment that passes its check: its directory, with links resolved. Throws PROVISION, with the failed step
 * and what it printed, when it cannot be made; CANCELLED on abort, after everything of it has ended and is removed.
 */
export async function provisionVenv(options: VenvOptions): Promise<string> {
  try {
    return await findOrInstall(options);
  } catch (error) {
    if (isReceiverError(error)) throw error;
    throw new ReceiverError('PROVISION', `${options.name} could not be installed`, {}, { cause: error });
  }
}

async function findOrInstall(options: VenvOptions): Promise<string> {
  const place = join(options.cacheDir ?? defaultCacheDir(), options.name);
  await mkdir(place, { recursive: true });
  const found = await findReady(place, options);
  if (found !== undefined) return found;
  const unlock = await lockPlace(place, options);
  try {
    return (await findReady(place, options)) ?? (await install(place, options));
  } finally {
    await unlock();
  }
}

function defaultCacheDir(): string {
  const { XDG_CACHE_HOME: chosen = '' } = process.env;
  return join(isAbsolute(chosen) ? chosen : join(homedir(), '.cache'), 'koa-esphome-receiver');
}

/** Undefined when there is none or it is broken. No answer in time is an error: the environment may be in use. */
async function findReady(place: string, options: VenvOptions): Promise<string | undefined> {
  try {
    const directory = await realpath(join(place, 'ready'));
    await checkVenv(directory, options);
    return directory;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    const isBroken = isReceiverError(error, 'SPAWN') || isReceiverError(error, 'PROVISION');
    if (!isBroken || error.facts.timedOut === true) throw error;
    options.log?.warn({ place, error }, 'an installed environment does not work and is made anew');
    return undefined;
  }
}

async function install(place: string, options: VenvOptions): Promise<string> {
  const python = options.python ?? (await findPython({ signal: options.signal })).path;
  await removeRemains(place);
  const directory = await mkdtemp(join(place, 'venv-'));
  const shared = { ...options, cwd: place };
  try {
    const pip = [join(directory, 'bin', 'python'), '-m', 'pip', 'install', '--progress-bar', 'off'] as const;
    await runStep([python, '-m', 'venv', directory], { ...shared, what: 'venv', timeoutMs: makeTimeoutMs });
    await runStep([...pip, options.requirement], { ...shared, what: 'pip', timeoutMs: installTimeoutMs });
    await checkVenv(directory, options);
    await symlink(basename(directory), join(place, 'ready'));
    return directory;
  } catch (error) {
    await rm(directory, { recursive: true, force: true, maxRetries: 5 });
    throw error;
  }
}

async function checkVenv(directory: string, { check, expect, ...options }: VenvOptions): Promise<void> {
  const [program, ...args] = check;
  const command = [join(directory, 'bin', program), ...args] as const;
  const what = check.join(' ');
  const output = await runStep(command, {
    ...options,
    cwd: directory,
    onLine: undefined,
    what,
    timeoutMs: checkTimeoutMs,
  });
  if (!output.split(/[\s,]+/).includes(expect)) {
    throw new ReceiverError('PROVISION', `${what} does not answer with ${expect}`, { output });
  }
}

/** What a broken environment or an interrupted attempt left. The link goes first: it must never point to half. */
async function removeRemains(place: string): Promise<void> {
  await rm(join(place, 'ready'), { force: true });
  for (const name of await readdir(place)) {
    if (name.startsWith('venv-'))
      await rm(join(place, name), { recursive: true, force: true, maxRetries: 5 });
  }
}

async function lockPlace(place: string, { signal, log }: VenvOptions): Promise<() => Promise<void>> {
  const { default: lockfile } = await import('proper-lockfile');
  for (let tries = 0; ; tries++) {
    if (signal?.aborted) throw new ReceiverError('CANCELLED', 'the wait for an installation was cancelled');
    try {
      const unlock = await lockfile.lock(place, {
        lockfilePath: join(place, 'lock'),
        realpath: false,
        stale: lockStaleMs,
        update: lockRenewMs,
        // Losing the lock costs a second installation and nothing else: the link decides.
        onCompromised: (error) => log?.warn({ place, error }, 'the lock on an installation was lost'),
      });
      return () => unlock().catch(() => undefined);
    } catch (error) {
      if (systemCode(error) !== 'ELOCKED') throw error;
      if (tries === 0) log?.info({ place }, 'waiting for another installation of the same environment');
      await pause(lockRetryMs, undefined, signal ? { signal } : {}).catch(() => undefined);
    }
  }
}
