/**
 * A complete, checked bundle that waits in its staging directory for its turn. Whoever holds it installs it
 * or discards it; nothing else ever removes it while its receiver lives.
 */
import { removeTree } from '../disk/remove.js';
import type { Manifest } from '../esphome/manifest.js';
import type { FileName } from '../paths/index.js';
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
