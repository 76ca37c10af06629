/**
 * Bundles that outlive their receiver. A staging directory bears the name of the process that fills it and is swept
 * when that is gone; one whose job is on record bears the job's id instead, and stays as long as the record lives.
 *
 * After a crash a bundle is where it was kept, or installed already: `config/` says which one it came from. One that
 * a power cut has left half on the disk is no bundle.
 */
import { rename } from 'node:fs/promises';
import { join } from 'node:path';

import { raceAbort } from '../async/abort.js';
import { removeTree } from '../disk/remove.js';
import { measure } from '../disk/usage.js';
import type { Manifest } from '../esphome/manifest.js';
import type { Log } from '../log.js';
import type { FileName, Layout, RemoteKey } from '../paths/index.js';
import { isInstalled } from './install.js';
import type { RemoteContent } from './remote-content.js';

export interface StagedFacts {
  /** Absolute; mode 0700, because a bundle holds secrets in clear text. */
  readonly directory: string;
  readonly manifest: Manifest;
  /** Sum of the files' sizes. */
  readonly bytes: number;
  readonly members: number;
  readonly remoteContent: RemoteContent;
  /** The same for the same content, however it was packed. In hex. */
  readonly contentSha256: string;
}

/** What a job's record remembers of its bundle, so that it is found again after a restart. */
export interface BundleFacts extends Pick<
  StagedFacts,
  'bytes' | 'members' | 'remoteContent' | 'contentSha256'
> {
  /** The ESPHome that made it; null when it does not say. */
  readonly esphomeVersion: string | null;
}

/**
 * A complete, checked bundle in its staging directory. Its holder installs or discards it; nothing else ever removes it
 * while its receiver lives.
 */
export interface StagedBundle extends StagedFacts {
  /** The YAML to compile: a file in the root of the directory. */
  readonly configFile: FileName;
  /**
   * Removes the directory, and waits for what was deferred. Once the bundle has been swapped in there is nothing left
   * to remove.
   */
  discard(): Promise<void>;
  /** Waits for what was deferred and leaves the directory to the next receiver. Never rejects. */
  settled(): Promise<void>;
  /** Has the two wait for this as well. It must not reject. */
  defer(work: Promise<void>): void;
}

/** Makes the bundle from its facts, fresh or remembered. */
export function stagedBundle(facts: StagedFacts): StagedBundle {
  const deferred: Promise<void>[] = [];
  const settled = async (): Promise<void> => void (await Promise.all(deferred));
  return Object.freeze({
    ...facts,
    configFile: facts.manifest.configFilename,
    async discard() {
      await removeTree(facts.directory);
      await settled();
    },
    settled,
    defer: (work: Promise<void>) => void deferred.push(work),
  });
}

export interface BundleStore {
  /**
   * Keeps a bundle under its job's id; the one that was given is used up. Before, the job's record must be where
   * every receiver sees it. Throws system errors; the bundle is then where it was.
   */
  keep(id: string, staged: StagedBundle): Promise<StagedBundle>;
  /** The bundle of a job from before the restart, or null when it is not there or not whole. Throws system errors. */
  find(job: BundleOwner): Promise<StagedBundle | null>;
  /** Nothing there is fine. Throws system errors. */
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
    async keep(id, { directory: from, manifest, bytes, members, remoteContent, contentSha256 }) {
      const directory = directoryOf(id);
      await rename(from, directory);
      return stagedBundle({ directory, manifest, bytes, members, remoteContent, contentSha256 });
    },
    async find(job) {
      const { id, file, bundle } = job;
      if (bundle === null) return null;
      const directory = directoryOf(id);
      const { bytes } = await measure(directory);
      if (bytes !== bundle.bytes && !(await isInstalled(directory, { layout, key: job }))) return null;
      const { esphomeVersion, ...facts } = bundle;
      const manifest = { manifestVersion: 1, configFilename: file, esphomeVersion } as const;
      return stagedBundle({ directory, manifest, ...facts });
    },
    remove: (id) => removeTree(directoryOf(id)),
  };
}

/** What is to be remembered of a bundle that is kept. */
export function factsOf({
  bytes,
  members,
  remoteContent,
  contentSha256,
  manifest,
}: StagedBundle): BundleFacts {
  return { bytes, members, remoteContent, contentSha256, esphomeVersion: manifest.esphomeVersion };
}

/**
 * Waiting for a bundle that is still being unpacked, without ever losing one: a bundle that arrives for a job
 * which has been cancelled meanwhile is discarded, and somebody can wait for that.
 */
export interface BundleWait {
  /** The bundle, or what `intake` rejected with, or the signal's reason as soon as it is aborted. */
  receive(intake: Promise<StagedBundle>, signal: AbortSignal): Promise<StagedBundle>;
  /** Keeps it under its job's id, so that it survives a restart. Null when it cannot be. Never rejects. */
  keep(id: string, staged: StagedBundle): Promise<StagedBundle | null>;
  /** Removes what is kept for a job. Never rejects. */
  remove(id: string): Promise<void>;
  /** Removes a bundle's directory, if anything of it is left. Never rejects. */
  discard(staged: StagedBundle): Promise<void>;
  /** Resolves when every intake that nobody waits for any more has ended and is removed. */
  settled(): Promise<void>;
}

export function createBundleWait(kept: Pick<BundleStore, 'keep' | 'remove'>, log: Log): BundleWait {
  const late = new Set<Promise<void>>();

  async function discard(staged: StagedBundle): Promise<void> {
    await staged.discard().catch((error: unknown) => {
      log.error({ directory: staged.directory, err: error }, 'bundle removal failed');
    });
  }

  function discardLater(intake: Promise<StagedBundle>): void {
    const done = intake.then(discard, () => {}).finally(() => late.delete(done));
    late.add(done);
  }

  return {
    discard,
    keep: async (id, staged) =>
      kept.keep(id, staged).catch((error: unknown) => {
        log.error({ id, err: error }, 'bundle not kept for a restart');
        return null;
      }),
    remove: async (id) =>
      kept.remove(id).catch((error: unknown) => {
        log.error({ id, err: error }, 'bundle removal failed');
      }),
    async receive(intake, signal) {
      try {
        return await raceAbort(intake, signal);
      } catch (error) {
        discardLater(intake);
        throw error;
      }
    },
    async settled() {
      await Promise.all(late);
    },
  };
}
