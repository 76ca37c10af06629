/**
 * Installs further ESPHome releases, because the firmware of a device must not depend on which release the build server
 * happens to have.
 *
 * Concurrent callers share one installation, which continues as long as one of them waits. No process removes a release
 * in use by any process; afterwards the least recently used releases are removed.
 */
import { dirname, join } from 'node:path';

import { createSerialQueue } from '../async/calls.js';
import { createSingleFlight, runOnce, type FlightCaller } from '../async/calls.js';
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
  /** Interpreters to try before those of {@link findPython}. Never rejects. */
  readonly pythons: () => Promise<readonly string[]>;
  readonly log: Log;
}

export interface Release {
  readonly command: EsphomeCommand;
  /** Idempotent, never rejects. */
  release(): Promise<void>;
}

export type Releases = ReturnType<typeof openReleases>;

/** Uses of a release in this process; other processes see one mark. */
interface Use {
  count: number;
  readonly mark: ReturnType<typeof useOf>;
}

/** Starts to look for a Python and to remove surplus releases, and waits for neither. */
export function openReleases(options: ReleasesOptions) {
  const { venvsDir, locksDir, timing, environment: env, log } = options;
  const stopping = new AbortController();
  const { signal: stopped } = stopping;
  const uses = new Map<string, Use>();
  let python = search();
  const sweeps = createSerialQueue();
  // The time until a crashed process's lock is free.
  void sweeps.run(() => sweep(3 * timing.staleMs));

  const place = (version: string): ReturnType<typeof placeOf> =>
    placeOf({ venvsDir, locksDir, name: venvName(version) });

  const share = createSingleFlight<EsphomeCommand>(async (version, { signal, output }) => {
    // A Python that was missing at the start may have been installed since.
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
    const release = runOnce(() => endUse(version, use));
    try {
      await use.mark;
      return release;
    } catch (error) {
      await release();
      throw error;
    }
  }

  async function endUse(version: string, use: Use): Promise<void> {
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
    /** Whether there is a Python to install with. Searched once, in the background. Never rejects. */
    canInstall: async (): Promise<boolean> => (await python) !== null,
    /**
     * Installs the release if necessary (1 to 2 minutes). Throws PROVISION with a reason for people. On abort it throws
     * the signal's reason, and first waits for pip to end if no one else needs the release.
     */
    async obtain(version: string, caller: FlightCaller): Promise<Release> {
      for (;;) {
        const command = await share(version, caller);
        const release = await hold(version);
        try {
          // Another process can have removed it between `share` and `hold`.
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
    /** Call it when no release is held or awaited. Never rejects. */
    async close(): Promise<void> {
      stopping.abort();
      await Promise.all([python, sweeps.idle()]);
    },
  };
}

export interface ProvisionOptions extends PlaceOptions {
  /** A release or an a/b/rc pre-release, as Device Builder 1.26 requests them. */
  readonly version: string;
}

/**
 * Returns the command of an ESPHome release and installs it from PyPI if necessary (1 to 2 minutes). Throws PROVISION
 * when that fails or the version is not a release or an a/b/rc pre-release; CANCELLED on abort.
 */
export async function provisionEsphome(options: ProvisionOptions): Promise<EsphomeCommand> {
  const { version, ...rest } = options;
  if (!isPinnable(version)) {
    const expected = 'expected a release such as "2026.10.0"';
    throw new ReceiverError('PROVISION', `cannot install ESPHome ${quote(version)}: ${expected}`);
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

export function venvName(version: string): string {
  return namePrefix + version;
}

/** The release of an environment; null for any other name. */
export function venvVersion(name: string): string | null {
  const version = name.slice(namePrefix.length);
  return name.startsWith(namePrefix) && isPinnable(version) ? version : null;
}

/** Summarizes pip's long output for the user of another machine. */
const pipSays: readonly (readonly [RegExp, string])[] = [
  [/No space left on device/, 'its disk is full'],
  [/Requires-Python|requires a different Python/, 'it needs another Python'],
  [
    /NameResolutionError|ConnectionError|Max retries exceeded|Read timed out/,
    'the package index is unreachable',
  ],
  [/No matching distribution found for esphome==/, 'there is no such release'],
];

function explained(error: unknown): unknown {
  if (!isReceiverError(error, 'PROVISION')) return error;
  const { output } = error.facts;
  const words = typeof output === 'string' && pipSays.find(([pattern]) => pattern.test(output))?.[1];
  return !words ? error : new ReceiverError('PROVISION', words, error.facts, { cause: error });
}
