/**
 * Staged bundles, some of which outlive their receiver. The name of a staging directory is that of the process that
 * fills it, and the sweep removes the directory when the process is gone. Once the job is on record the directory is
 * renamed to the job's id, and stays as long as the record.
 *
 * After a crash a bundle is where it was kept, or already installed: `config/` says which one it came from. A bundle
 * that a power cut left incomplete does not count.
 */
import { rename } from 'node:fs/promises';
import { join } from 'node:path';

import { raceAbort } from '../async/calls.js';
import { removeTree } from '../disk/remove.js';
import { patiently } from '../disk/reserve.js';
import { measure } from '../disk/usage.js';
import type { Manifest } from '../esphome/manifest.js';
import type { Log } from '../log.js';
import type { FileName, Layout, RemoteKey } from '../paths/index.js';
import { isInstalled } from './install.js';
import type { RemoteContent } from './remote-content.js';

/** A reserved directory of the archive that was not unpacked. */
export interface LeftOut {
  readonly directory: string;
  readonly members: number;
}

export interface ContentFacts {
  /** Sum of the files' sizes. */
  readonly bytes: number;
  readonly members: number;
  readonly remoteContent: RemoteContent;
  /** Hash in hex of the members' paths, kinds, modes and bytes, independent of how they were packed. */
  readonly contentSha256: string;
  /** What the archive held and the directory does not. Empty after a restart. */
  readonly leftOut: readonly LeftOut[];
}

/** The part of its peer's share that a bundle takes until a job's record counts it. */
export interface StagingRoom {
  /** Takes more bytes, or says why there is no room for them. */
  take(bytes: number): NoRoom | null;
  /** Gives all of it back. Idempotent. */
  release(): void;
}

/** Why there is no room: a code of the wire, and a sentence for the peer's user. */
export interface NoRoom {
  readonly reason: 'quota_exceeded' | 'disk_full';
  readonly detail: string;
}

/** Each file takes whole blocks, and an entry in a directory. */
const memberBytes = 4_096;

/** What an unpacked bundle takes on the disk at most, in bytes. */
export function spaceOf({ bytes, members }: Pick<ContentFacts, 'bytes' | 'members'>): number {
  return bytes + members * memberBytes;
}

export interface StagedFacts extends ContentFacts {
  /** Absolute; mode 0700, because a bundle holds secrets in clear text. */
  readonly directory: string;
  readonly manifest: Manifest;
  readonly room?: StagingRoom | undefined;
}

/** The part of a bundle that its job's record stores, to find it again after a restart. */
export interface BundleFacts extends Omit<ContentFacts, 'leftOut'> {
  /** The ESPHome that made it; null if the manifest does not say. */
  readonly esphomeVersion: string | null;
}

/** A complete, checked bundle in its staging directory. Only its owner, who installs or discards it, removes it. */
export interface StagedBundle extends StagedFacts {
  /** The YAML to compile: a file in the root of the directory. */
  readonly configFile: FileName;
  /** Removes the directory, unless it has been installed, and waits for deferred work. */
  discard(): Promise<void>;
  /** Waits for deferred work and leaves the directory to the next receiver. Never rejects. */
  settled(): Promise<void>;
  /** Adds work for `discard` and `settled` to wait for. It must not reject. */
  defer(work: Promise<void>): void;
}

/** Makes the bundle from its facts, new or recorded. */
export function stagedBundle(facts: StagedFacts): StagedBundle {
  const deferred: Promise<void>[] = [];
  const settled = async (): Promise<void> => void (await Promise.all(deferred));
  return Object.freeze({
    ...facts,
    configFile: facts.manifest.configFilename,
    async discard() {
      await removeTree(facts.directory);
      facts.room?.release();
      await settled();
    },
    settled,
    defer: (work: Promise<void>) => void deferred.push(work),
  });
}

export interface BundleStore {
  /**
   * Renames a bundle to its job's id; use only the returned bundle afterwards. The job's record must already be
   * visible to every receiver. Throws system errors; the bundle is then where it was.
   */
  keep(id: string, staged: StagedBundle): Promise<StagedBundle>;
  /** The bundle of a job from before a restart, or null if it is missing or incomplete. Throws system errors. */
  find(job: BundleOwner): Promise<StagedBundle | null>;
  /** Does nothing if there is no bundle. Throws system errors. */
  remove(id: string): Promise<void>;
}

export interface BundleOwner extends RemoteKey {
  readonly id: string;
  readonly file: FileName;
  readonly bundle: BundleFacts | null;
}

export function createBundleStore(layout: Layout): BundleStore {
  const directoryOf = (id: string): string => join(layout.uploadsDir, id);

  return {
    async keep(id, staged) {
      const directory = directoryOf(id);
      await rename(staged.directory, directory);
      return stagedBundle({ ...staged, directory });
    },
    async find(job) {
      const { id, file, bundle } = job;
      if (bundle === null) return null;
      const directory = directoryOf(id);
      const { bytes } = await measure(directory);
      if (bytes !== bundle.bytes && !(await isInstalled(directory, { layout, key: job }))) return null;
      const { esphomeVersion, ...facts } = bundle;
      const manifest = { manifestVersion: 1, configFilename: file, esphomeVersion } as const;
      return stagedBundle({ directory, manifest, ...facts, leftOut: [] });
    },
    remove: (id) => removeTree(directoryOf(id)),
  };
}

/** The facts for the job's record. */
export function factsOf(staged: StagedBundle): BundleFacts {
  const { bytes, members, remoteContent, contentSha256, manifest } = staged;
  return { bytes, members, remoteContent, contentSha256, esphomeVersion: manifest.esphomeVersion };
}

/**
 * Waits for bundles that are still being unpacked and loses none: a bundle that arrives after its job was cancelled
 * is discarded, and `settled` waits for that. `keep`, `remove` and `discard` log an error and never reject.
 */
export function createBundleWait(
  kept: Pick<BundleStore, 'keep' | 'remove'>,
  log: Log,
  pausesMs?: readonly number[],
) {
  const late = new Set<Promise<void>>();

  async function discard(staged: StagedBundle): Promise<void> {
    await staged.discard().catch((error: unknown) => {
      log.error({ directory: staged.directory, err: error }, 'bundle removal failed');
    });
  }

  /** Discards a bundle that nobody needs, when it is complete. */
  function discardLater(intake: Promise<StagedBundle>): Promise<void> {
    const done = intake.then(discard, () => {}).finally(() => late.delete(done));
    late.add(done);
    return done;
  }

  return {
    discard,
    discardLater,
    /** Returns null after an error. */
    keep: async (id: string, staged: StagedBundle, signal: AbortSignal) =>
      patiently(() => kept.keep(id, staged), signal, log, pausesMs).catch((error: unknown) => {
        log.error({ id, err: error }, 'bundle not kept for a restart');
        return null;
      }),
    remove: async (id: string) =>
      kept.remove(id).catch((error: unknown) => {
        log.error({ id, err: error }, 'bundle removal failed');
      }),
    /** Returns the bundle. Rejects as `intake` does, or with the signal's reason as soon as it aborts. */
    async receive(intake: Promise<StagedBundle>, signal: AbortSignal): Promise<StagedBundle> {
      try {
        return await raceAbort(intake, signal);
      } catch (error) {
        void discardLater(intake);
        throw error;
      }
    },
    /** Resolves when every abandoned intake has ended and its bundle is removed. */
    async settled(): Promise<void> {
      await Promise.all(late);
    },
  };
}
