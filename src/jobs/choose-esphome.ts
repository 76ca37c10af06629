/**
 * Chooses the ESPHome for a job: the host's own if it has the requested version, else a release installed for it.
 *
 * A build with another version than the user chose is not a success: the firmware would differ from that of the user's
 * own dashboard. So if the version is unavailable the job fails, with a message that lets the client build locally.
 * The host's version is checked again after a job has waited.
 */
import type { Clock } from '../async/clock.js';
import type { Disposer } from '../async/disposer.js';
import { ReceiverError, isReceiverError, quote } from '../errors.js';
import { findEsphome, type EsphomeCommand } from '../esphome/command.js';
import { isPinnable } from '../esphome/version.js';
import type { LockTiming } from '../locks/lease.js';
import type { ResolvedOptions } from '../options/core.js';
import type { Layout } from '../paths/index.js';
import {
  createInstalled,
  createKnownVersion,
  type Installed,
  type InstalledEsphome,
  type InstalledOptions,
} from '../provision/installed.js';
import type { QueuedJob } from './record.js';
import { pythonOf } from '../provision/python.js';
import { openReleases, type Releases } from '../provision/releases.js';

export interface ChosenEsphome {
  readonly command: EsphomeCommand;
  readonly version: string;
  /** The version now, after a wait of any length. Throws `PROVISION` if it no longer matches; `CANCELLED`. */
  confirm(signal: AbortSignal): Promise<string>;
  /** An installed release can be removed afterwards. Idempotent, never rejects. */
  release(): Promise<void>;
}

/**
 * `wanted` is a version, or empty for any; `output` gets lines for the job's log during an installation. Can be
 * called as soon as a job is announced. Throws `PROVISION` with a readable message; `CANCELLED` on abort, once nothing
 * runs for this job.
 */
export type ChooseEsphome = (
  wanted: string,
  signal: AbortSignal,
  output: (line: string) => void,
) => Promise<ChosenEsphome>;

/** The caller releases the result; null for a clean. Throws as {@link ChooseEsphome} does. */
export async function chooseFor(job: QueuedJob, chooseEsphome: ChooseEsphome): Promise<ChosenEsphome | null> {
  const { target, targetVersion } = job.record;
  if (target === 'clean') return null;
  const chosen = await chooseEsphome(targetVersion, job.signal, (line) => {
    job.output(line);
    if (job.record.waiting === null) job.recordFacts({ waiting: { for: 'esphome', version: targetVersion } });
  });
  job.recordFacts({ esphomeVersion: chosen.version, ...(job.record.waiting !== null && { waiting: null }) });
  return chosen;
}

interface ChoiceOptions {
  readonly installed: InstalledEsphome;
  /** Null when installing releases is disabled. */
  readonly releases: Pick<Releases, 'obtain'> | null;
}

export function createChoice({ installed, releases }: ChoiceOptions): ChooseEsphome {
  return async (wanted, signal, output) => {
    const found = await installed.ask(signal).catch((error: unknown) => {
      if (!isReceiverError(error, 'PROVISION')) throw error;
      return error;
    });
    if (isInstalled(found) && (wanted === '' || wanted === found.version)) {
      return installedChoice(found, wanted, installed);
    }
    if (wanted === '') throw found;
    return install(wanted, { signal, output }, found, releases);
  };
}

function isInstalled(found: Installed | ReceiverError): found is Installed {
  return 'command' in found;
}

function installedChoice(found: Installed, wanted: string, installed: InstalledEsphome): ChosenEsphome {
  return {
    command: found.command,
    version: found.version,
    async confirm(signal) {
      if (!installed.isStale(found)) return found.version;
      const version = await installed.askAgain(found, signal);
      if (wanted === '' || wanted === version) return version;
      const message = `the ESPHome of this build server changed to ${version} while the job waited`;
      throw new ReceiverError('PROVISION', message, { wanted, version });
    },
    async release() {},
  };
}

async function install(
  wanted: string,
  caller: Parameters<Releases['obtain']>[1],
  found: Installed | ReceiverError,
  releases: ChoiceOptions['releases'],
): Promise<ChosenEsphome> {
  const own = isInstalled(found) ? `ESPHome ${found.version}` : 'no working ESPHome';
  const has = `this build server has ${own}`;
  const facts = { wanted, own };
  if (releases === null || !isPinnable(wanted)) {
    throw new ReceiverError('PROVISION', `${has} and cannot install ${quote(wanted)}`, facts);
  }
  try {
    const release = await releases.obtain(wanted, caller);
    return { ...release, version: wanted, confirm: async () => wanted };
  } catch (error) {
    if (caller.signal.aborted) throw error;
    const isKnown = isReceiverError(error, 'PROVISION');
    const reason = isKnown ? error.message : 'see its log';
    throw new ReceiverError(
      'PROVISION',
      `${has} and could not install ${wanted}: ${reason}`,
      { ...facts, ...(isKnown && error.facts) },
      { cause: isKnown ? error.cause : error },
    );
  }
}

type EsphomeOptions = Pick<
  ResolvedOptions,
  'esphome' | 'environment' | 'provisionVersions' | 'maxVersions' | 'log'
>;

export function openEsphome(
  options: EsphomeOptions,
  parts: {
    readonly layout: Layout;
    readonly timing: LockTiming;
    readonly clock: Clock;
    readonly ends: Disposer;
  },
) {
  const { layout, timing, clock, ends } = parts;
  const { esphome, environment } = options;
  const own: InstalledOptions = {
    esphome,
    environment,
    probeEnv: { PATH: environment['PATH'] ?? '', HOME: layout.receiverDir, PYTHONNOUSERSITE: '1' },
    clock,
  };
  const releases = options.provisionVersions ? releasesOf(options, layout, timing, own) : null;
  ends.add(async () => releases?.close());
  const installed = createInstalled(own);
  ends.add(() => installed.close());
  return {
    ...{ installed, releases },
    choose: createChoice({ installed, releases }),
    version: createKnownVersion(installed, clock),
  };
}

function releasesOf(
  { maxVersions, environment, log }: EsphomeOptions,
  { venvsDir, locksDir }: Layout,
  timing: LockTiming,
  own: InstalledOptions,
): Releases {
  return openReleases({
    ...{ venvsDir, locksDir, timing, maxVersions, environment, log },
    async pythons() {
      const command = await findEsphome(own);
      return command === null ? [] : pythonOf(command);
    },
  });
}
