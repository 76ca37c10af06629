/**
 * The ESPHome releases that are installed besides the host's own, for jobs that ask for another version than it has.
 *
 * A release is installed once for all who want it, however many ask and whoever of them leaves. While somebody holds
 * it nobody removes it, in this process or another; afterwards the least recently used ones go.
 */
import { dirname, join } from 'node:path';

import { createSerialQueue } from '../async/serial-queue.js';
import { createSingleFlight, runOnce, type FlightCaller } from '../async/single-flight.js';
import { ReceiverError, isReceiverError, quote } from '../errors.js';
import type { EsphomeCommand } from '../esphome/command.js';
import { isPinnable } from '../esphome/version.js';
import type { LockTiming } from '../locks/lease.js';
import type { Log } from '../log.js';
import type { ResolvedOptions } from '../options/core.js';
import { findPython, type Python } from './python.js';
import { placeOf, readyIn, stampUse, useOf, sweepVenvs } from './venv-place.js';
import { provisionVenv, type PlaceOptions } from './venv.js';

const sharing = { maxAtOnce: 3, maxLines: 300, maxLineLength: 500 } as const;

export interface ReleasesOptions extends Pick<ResolvedOptions, 'maxVersions' | 'environment'> {
  /** Absolute; both must exist. */
  readonly venvsDir: string;
  readonly locksDir: string;
  readonly timing: LockTiming;
  /** Interpreters to try before those that {@link findPython} looks for. Never rejects. */
  readonly pythons: () => Promise<readonly string[]>;
  readonly log: Log;
}

export interface Release {
  readonly command: EsphomeCommand;
  /** Lets go of it. Idempotent, never rejects. */
  release(): Promise<void>;
}

export interface Releases {
  /** Whether there is a Python to install with. Looked for once, in the background. Never rejects. */
  canInstall(): Promise<boolean>;
  /**
   * The release, installed first where it is not there yet (1 to 2 minutes). Throws PROVISION with a reason for
   * people, and the reason of the caller's signal on abort: after pip has ended, if nobody else waits for it.
   */
  obtain(version: string, caller: FlightCaller): Promise<Release>;
  /** To be called when nobody holds a release or waits for one. Never rejects. */
  close(): Promise<void>;
}

/** How many hold a release in this process; what others see of it is one mark. */
interface Use {
  count: number;
  readonly mark: ReturnType<typeof useOf>;
}

/** Begins to look for a Python and to remove what is too much; neither is waited for. */
export function openReleases(options: ReleasesOptions): Releases {
  const { venvsDir, locksDir, timing, environment: env, log } = options;
  const stopping = new AbortController();
  const { signal: stopped } = stopping;
  const uses = new Map<string, Use>();
  let python = search();
  const sweeps = createSerialQueue();
  // A lock that a crash has left takes this long to be free.
  void sweeps.run(() => sweep(3 * timing.staleMs));

  const place = (version: string): ReturnType<typeof placeOf> =>
    placeOf({ venvsDir, locksDir, name: venvName(version) });

  const share = createSingleFlight<EsphomeCommand>(async (version, { signal, output }) => {
    // One that was missing at the start may have been installed meanwhile.
    const known = (await python) ?? (await (python = search()));
    return provisionEsphome({
      ...{ version, cacheDir: venvsDir, locksDir, timing, env, log, signal },
      ...(known && { python: known.path }),
      onLine: output,
      onInstall: () => output(`Installing ESPHome ${version}; this takes a minute or two.\n`),
    });
  }, sharing);

  async function search(): Promise<Python | null> {
    try {
      return await findPython({ env, first: await options.pythons(), signal: stopped });
    } catch (error) {
      if (!stopped.aborted) log.info({ err: error }, 'releases cannot be installed: no suitable Python');
      return null;
    }
  }

  async function hold(version: string): Promise<() => Promise<void>> {
    const use = uses.get(version) ?? { count: 0, mark: useOf(place(version), timing) };
    uses.set(version, use);
    use.count += 1;
    const release = runOnce(() => letGo(version, use));
    try {
      await use.mark;
      return release;
    } catch (error) {
      await release();
      throw error;
    }
  }

  async function letGo(version: string, use: Use): Promise<void> {
    use.count -= 1;
    if (use.count > 0) return;
    uses.delete(version);
    const done = [stampUse(place(version)), use.mark.then((mark) => mark.leave())];
    for (const result of await Promise.allSettled(done)) {
      if (result.status === 'fulfilled') continue;
      log.warn({ version, err: result.reason }, 'release use not recorded');
    }
    void sweeps.run(() => sweep(0));
  }

  async function sweep(waitMs: number): Promise<void> {
    await sweepVenvs({ venvsDir, locksDir, timing, keep: options.maxVersions, waitMs, signal: stopped, log });
  }

  return {
    canInstall: async () => (await python) !== null,
    async obtain(version, caller) {
      for (;;) {
        const command = await share(version, caller);
        const release = await hold(version);
        try {
          // Between the two it may have been removed.
          if ((await readyIn(place(version))) === dirname(dirname(command[0]))) {
            await stampUse(place(version));
            return { command, release };
          }
        } catch (error) {
          await release();
          throw error;
        }
        await release();
      }
    },
    async close() {
      stopping.abort();
      await Promise.all([python, sweeps.idle()]);
    },
  };
}

/**
 * An ESPHome of exactly the version that is asked for, installed on demand: the firmware of a device must not depend
 * on which release the build server happens to have.
 */
export interface ProvisionOptions extends PlaceOptions {
  /** A release or an a/b/rc pre-release: Device Builder 1.26 asks for no other either. */
  readonly version: string;
}

/**
 * The command of an ESPHome release, which is installed from PyPI first where it is not there yet (1 to 2 minutes).
 * Throws PROVISION when that fails, and for a version that is not a plain release or a/b/rc; CANCELLED on abort.
 */
export async function provisionEsphome(options: ProvisionOptions): Promise<EsphomeCommand> {
  const { version, ...rest } = options;
  if (!isPinnable(version)) {
    throw new ReceiverError('PROVISION', `ESPHome ${quote(version)} is not a release that can be installed`);
  }
  try {
    const directory = await provisionVenv({
      ...rest,
      name: venvName(version),
      requirement: `esphome==${version}`,
      check: ['esphome', 'version'],
      expect: version,
    });
    return [join(directory, 'bin', 'esphome')];
  } catch (error) {
    throw explained(error);
  }
}

const namePrefix = 'esphome-';

/** The name of a release's environment. */
export function venvName(version: string): string {
  return namePrefix + version;
}

/** The release of an environment; null for another name. */
export function venvVersion(name: string): string | null {
  const version = name.slice(namePrefix.length);
  return name.startsWith(namePrefix) && isPinnable(version) ? version : null;
}

/** What pip says in many lines, in a few words for the user of another machine. */
const pipSays: readonly (readonly [RegExp, string])[] = [
  [/No space left on device/, 'its disk is full'],
  [/Requires-Python|requires a different Python/, 'it needs another Python'],
  [
    /NameResolutionError|ConnectionError|Max retries exceeded|Read timed out/,
    'the package index cannot be reached',
  ],
  [/No matching distribution found for esphome==/, 'there is no such release'],
];

function explained(error: unknown): unknown {
  if (!isReceiverError(error, 'PROVISION')) return error;
  const { output } = error.facts;
  const words = typeof output === 'string' && pipSays.find(([pattern]) => pattern.test(output))?.[1];
  return !words ? error : new ReceiverError('PROVISION', words, error.facts, { cause: error });
}
