/**
 * Creates a Python environment with one package installed, once for all processes.
 *
 * Each attempt fills a new directory, and the symbolic link `ready`, made last, names the current one. So an incomplete
 * environment is never used, and an environment is never moved (its scripts contain absolute paths). With a lease the
 * second process waits instead of installing too, and stops the installer of a dead process. An environment that may be
 * in use is not removed; the new one is created beside it.
 */
import { mkdtemp, realpath } from 'node:fs/promises';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';

import { makeDirectory } from '../disk/atomic-write.js';
import { removeTree } from '../disk/remove.js';
import { ReceiverError, isReceiverError, systemCode } from '../errors.js';
import { acquireAt, type Lease, type LockTiming } from '../locks/lease.js';
import { silentLog, type Log } from '../log.js';
import { defaultLockStaleMs, lockTiming } from '../options/core.js';
import { findPython } from './python.js';
import { runStep } from '../esphome/step.js';
import {
  emptyPlace,
  isInUse,
  markReady,
  placeOf,
  readyIn,
  removeIfEmpty,
  stampUse,
  type VenvPlace,
} from './venv-place.js';

/** As in Device Builder 1.26. */
const makeTimeoutMs = 120_000;
/** A slow line may take an hour, and building a package without a wheel prints nothing for minutes. */
const defaultSilenceMs = 300_000;
const checkTimeoutMs = 60_000;
/** A machine that stalls for too long loses its lock; the second attempt finds what another process installed. */
const maxAttempts = 2;

export interface PlaceOptions {
  /** Absolute. Default: `$XDG_CACHE_HOME/koa-esphome-receiver`, or the same in `~/.cache`. */
  readonly cacheDir?: string;
  /** Absolute. Default: `locks` in `cacheDir`. */
  readonly locksDir?: string;
  readonly timing?: LockTiming;
  /** A Python 3.12 to 3.14. Default: the one that {@link findPython} finds. */
  readonly python?: string;
  /** The host's environment. Default: `process.env`. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Gets pip's output, each line with its terminator. */
  readonly onLine?: (line: string) => void;
  /** Longest time for which pip prints nothing. Default: 300,000. */
  readonly silenceTimeoutMs?: number;
  /** Called before an installation starts. */
  readonly onInstall?: () => void;
  readonly log?: Log;
  readonly signal?: AbortSignal;
}

export interface VenvOptions extends PlaceOptions {
  /** A plain file name: the directory below `cacheDir`. */
  readonly name: string;
  /** What pip installs. */
  readonly requirement: string;
  /** A program of the environment with arguments, which must exit with 0 and print the word `expect`. */
  readonly check: readonly [string, ...string[]];
  readonly expect: string;
}

type Settled = VenvOptions & Required<Pick<VenvOptions, 'env' | 'log' | 'timing'>>;

/**
 * Returns the directory, links resolved, of an environment that passes its check. Throws PROVISION, with the failed
 * step and its output, when it cannot be created; CANCELLED on abort, after it has stopped and removed everything.
 */
export async function provisionVenv(options: VenvOptions): Promise<string> {
  const { cacheDir = defaultCacheDir(), locksDir = join(cacheDir, 'locks'), name } = options;
  const place = placeOf({ venvsDir: cacheDir, locksDir, name });
  const settled = { env: process.env, log: silentLog, timing: lockTiming(defaultLockStaleMs), ...options };
  try {
    for (let attempt = 1; ; attempt += 1) {
      const directory = await findOrInstall(place, settled, attempt === maxAttempts);
      if (directory !== null) return directory;
    }
  } catch (error) {
    if (isReceiverError(error, 'CANCELLED') || isReceiverError(error, 'PROVISION')) throw error;
    throw new ReceiverError(
      'PROVISION',
      `${name} could not be installed: ${reasonOf(error)}`,
      {},
      { cause: error },
    );
  }
}

/** Without host paths. */
function reasonOf(error: unknown): string {
  if (isReceiverError(error, 'SPAWN'))
    return `${error.message}; is the volume of the installed releases mounted noexec?`;
  if (isReceiverError(error)) return error.message;
  const code = systemCode(error);
  return code === undefined ? 'see the log of the build server' : `a file operation failed (${code})`;
}

function defaultCacheDir(): string {
  const { XDG_CACHE_HOME: chosen = '' } = process.env;
  return join(isAbsolute(chosen) ? chosen : join(homedir(), '.cache'), 'koa-esphome-receiver');
}

/** Null when the lease was lost during the installation. */
async function findOrInstall(place: VenvPlace, options: Settled, isLast: boolean): Promise<string | null> {
  const found = await findReady(place, options);
  if (found !== null) return found;
  const { name, signal, log, timing, onLine } = options;
  const lease = await acquireAt(place.lockDir, {
    ...{ reason: `installing ${name}`, signal, log, timing },
    onBlocked: () => onLine?.(`Waiting for another installation of ${name}.\n`),
  });
  try {
    return (await findReady(place, options)) ?? (await install(place, lease, options));
  } catch (error) {
    if (isLast || signal?.aborted || !lease.signal.aborted) throw error;
    log.warn({ name, err: error }, 'installation lost its lock, trying again');
    return null;
  } finally {
    await lease.release();
  }
}

/** Null if there is none or it is broken. A timeout of the check is an error: the machine may be busy. */
async function findReady(place: VenvPlace, options: Settled): Promise<string | null> {
  const directory = await readyIn(place);
  if (directory === null) return null;
  try {
    await checkVenv(directory, options);
    return directory;
  } catch (error) {
    const isBroken = isReceiverError(error, 'SPAWN') || isReceiverError(error, 'PROVISION');
    if (!isBroken || error.facts.timedOut === true) throw error;
    options.log.warn({ directory, err: error }, 'installed release is broken, installing it again');
    return null;
  }
}

async function install(place: VenvPlace, lease: Lease, options: Settled): Promise<string> {
  const { env, requirement, timing } = options;
  const startedAt = performance.now();
  const signal = options.signal ? AbortSignal.any([options.signal, lease.signal]) : lease.signal;
  const python = options.python ?? (await findPython({ env, signal })).path;
  options.onInstall?.();
  await makeDirectory(place.directory);
  // Removes the remains of a crash or a broken environment, although a process may still be using the latter.
  if (!(await isInUse(place, timing))) await emptyPlace(place);
  const directory = await mkdtemp(join(place.directory, 'venv-'));
  const shared = {
    ...{ ...options, signal, cwd: place.directory },
    beforeStart: (identity: Parameters<Lease['recordBuild']>[0]) => lease.recordBuild(identity),
  };
  try {
    const pip = [join(directory, 'bin', 'python'), '-m', 'pip', 'install', '--progress-bar', 'off'] as const;
    await runStep([python, '-m', 'venv', directory], { ...shared, what: 'venv', timeoutMs: makeTimeoutMs });
    await runStep([...pip, requirement], {
      ...shared,
      what: 'pip',
      silenceTimeoutMs: options.silenceTimeoutMs ?? defaultSilenceMs,
    });
    await checkVenv(directory, shared);
    await stampUse(place);
    await lease.publish(() => markReady(place, directory));
    const seconds = Math.round((performance.now() - startedAt) / 1_000);
    options.log.info({ name: options.name, directory, seconds }, 'release installed');
    return await realpath(directory);
  } catch (error) {
    await removeTree(directory);
    await removeIfEmpty(place);
    throw error;
  }
}

type CheckOptions = Pick<VenvOptions, 'check' | 'expect'> &
  Omit<Parameters<typeof runStep>[1], 'what' | 'timeoutMs' | 'silenceTimeoutMs' | 'cwd'>;

async function checkVenv(directory: string, { check, expect, ...options }: CheckOptions): Promise<void> {
  const [program, ...args] = check;
  const command = [join(directory, 'bin', program), ...args] as const;
  const what = check.join(' ');
  const step = { ...options, cwd: directory, onLine: undefined, what, timeoutMs: checkTimeoutMs };
  const output = await runStep(command, step);
  if (!output.split(/[\s,]+/).includes(expect)) {
    throw new ReceiverError('PROVISION', `"${what}" did not print ${expect}`, { output });
  }
}
