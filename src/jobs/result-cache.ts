/**
 * Gives a job the packed result of the build before it, when the same bundle is sent again and nothing has changed.
 *
 * "Before it" is meant literally: nobody may have held the lock on the device's directory since that build ended.
 * Then `config/`, the sidecar and `build/`, where the resolver and the host's pages look, belong to the very bundle
 * whose firmware the client gets. After another bundle, a failed build, a clean or a wipe there is a compile, which
 * is what their user expects and which ESPHome's own caches make short. Only the number of the lease proves this,
 * for it also counts what other receivers did in the directory; so the look is taken under the lease.
 *
 * Bundles are the same when their content is: `esphome bundle` packs with the time of day in the gzip header (2026.10),
 * so that no two archives ever have one hash.
 */
import { createHash } from 'node:crypto';

import type { ArtifactFacts } from '../artifacts/store.js';
import type { RemoteContent } from '../bundles/remote-content.js';
import type { Lease } from '../locks/lease.js';
import type { Log } from '../log.js';
import type { JobRecord, Outcome } from './record.js';

export interface ResultCache {
  /** The outcome of the job without a compile; null when there has to be one. Throws what a lost lease throws. */
  reuse(lease: BuildLease): Promise<Outcome | null>;
  /** What the record of a build that was done under this lease has to say, so that its result can be found. */
  keyOf(lease: BuildLease): string | null;
}

export type BuildLease = Pick<Lease, 'fence' | 'publish'>;

/** What decides a result besides the request. */
export interface Ingredients {
  /** Of the ESPHome that builds. */
  readonly version: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly remoteContent: RemoteContent;
  /** Of the bundle. */
  readonly contentSha256: string;
}

export interface ResultCacheDeps {
  /** Whether results are used again at all. */
  readonly resultCache: boolean;
  /** Keeps the result of one job under the id of another as well. */
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

/** The cache as one job sees it. */
export function resultCacheOf(job: CachedJob, ingredients: Ingredients, deps: ResultCacheDeps): ResultCache {
  const { remoteParts, webFiles } = ingredients.remoteContent;
  // What is fetched may be something else today.
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
    async reuse(lease) {
      if (isOff) return null;
      const earlier = job.earlierResult(keyAt(lease.fence - 1));
      if (earlier === undefined) return null;
      const artifacts = await lease.publish(() => copyOf(earlier));
      if (artifacts === null) return null;
      job.output(`The same bundle was built by job ${earlier.id}; its result is used again.\n`);
      const { progress } = earlier;
      return { to: 'completed', artifacts, facts: { cached: true, resultKey: keyAt(lease.fence), progress } };
    },
    keyOf: ({ fence }) => (isOff ? null : keyAt(fence)),
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
