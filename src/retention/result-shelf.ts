/** The packed results of ended jobs as a shelf: what goes with one is its job's record and log. */
import type { Jobs } from '../jobs/jobs.js';
import { isTerminal, lastUse } from '../jobs/job.js';
import type { Shelf } from './shelf.js';

export function createResultShelf(jobs: Pick<Jobs, 'list' | 'get' | 'remove'>): Shelf {
  return {
    async list() {
      return jobs.list().flatMap((job) => {
        if (!isTerminal(job) || job.artifacts === null) return [];
        const item = { kind: 'result', jobId: job.id } as const;
        return { item, bytes: job.artifacts.bytes, usedAt: lastUse(job), isInUse: false };
      });
    },
    async remove({ item, usedAt }) {
      const job = item.kind === 'result' ? jobs.get(item.jobId) : undefined;
      // Fetched since it was listed.
      if (job === undefined || lastUse(job) !== usedAt) return false;
      return jobs.remove(job.id);
    },
  };
}
