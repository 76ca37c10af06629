/**
 * Reuses the packed result of the directly preceding build when the same bundle is sent again and nothing changed.
 *
 * Directly preceding means that nobody has held the lock on the device's directory since that build ended. Then
 * `config/`, the sidecar and `build/`, which the resolver and the host's pages read, belong to the bundle whose firmware
 * the client gets. After another bundle, a failed build, a clean or a wipe there is a compile, as the user expects;
 * ESPHome's own caches keep it short. Only the lease's fence number proves this, because it also counts other
 * receivers' work in the directory; so the check happens under the lease.
 *
 * Bundles are compared by content: `esphome bundle` writes the time of day into the gzip header (2026.10), so the
 * hashes of two archives always differ.
 */
import { createHash } from 'node:crypto';

import type { ArtifactFacts } from '../artifacts/pack.js';
import type { RemoteContent } from '../bundles/remote-content.js';
import type { Lease } from '../locks/lease.js';
import type { Log } from '../log.js';
import type { JobRecord, Outcome } from './record.js';

export interface Ingredients {
  readonly version: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly remoteContent: RemoteContent;
  readonly contentSha256: string;
}

export interface ResultCacheDeps {
  readonly resultCache: boolean;
  /** Stores the result of one job under the id of another as well. */
  readonly copyArtifacts: (from: string, id: string) => Promise<ArtifactFacts>;
  /** Throws when the device's directory does not hold a finished build. */
  readonly verify: (configuration: string) => Promise<unknown>;
  readonly log: Log;
}

export interface CachedJob {
  readonly record: JobRecord;
  /** The newest completed job whose record has this key. */
  earlierResult(key: string): JobRecord | undefined;
  output(line: string): void;
}

export function resultCacheOf(job: CachedJob, ingredients: Ingredients, deps: ResultCacheDeps) {
  const { remoteParts, webFiles } = ingredients.remoteContent;
  // Remote content can have changed since.
  const isOff = !deps.resultCache || remoteParts || webFiles;

  const keyAt = (fence: number): string => hashOf(job.record, ingredients, fence);

  async function copyOf(earlier: JobRecord): Promise<ArtifactFacts | null> {
    try {
      await deps.verify(job.record.configuration);
      return await deps.copyArtifacts(earlier.id, job.record.id);
    } catch (error) {
      deps.log.info({ id: earlier.id, err: error }, 'result not reused');
      return null;
    }
  }

  return {
    /** The outcome without a compile; null when a compile is needed. Throws what a lost lease throws. */
    async reuse(lease: Pick<Lease, 'fence' | 'publish'>): Promise<Outcome | null> {
      if (isOff) return null;
      const earlier = job.earlierResult(keyAt(lease.fence - 1));
      if (earlier === undefined) return null;
      const artifacts = await lease.publish(() => copyOf(earlier));
      if (artifacts === null) return null;
      job.output(`The same bundle was built by job ${earlier.id}; reusing its result.\n`);
      const { progress } = earlier;
      return { to: 'completed', artifacts, facts: { cached: true, resultKey: keyAt(lease.fence), progress } };
    },
    /** The `resultKey` for the record of a build under this lease. */
    keyOf: ({ fence }: Pick<Lease, 'fence'>): string | null => (isOff ? null : keyAt(fence)),
  };
}

function hashOf(
  { configuration, target, skipBootloader }: JobRecord,
  { version, environment, contentSha256 }: Ingredients,
  fence: number,
): string {
  const asked = [configuration, target, contentSha256, skipBootloader];
  return createHash('sha256')
    .update(JSON.stringify([asked, version, environment, fence]))
    .digest('hex');
}
