/**
 * Where job records outlive the process: the contract, and the version for tests that forgets.
 *
 * A store keeps one record for each id, the last that was put. It knows nothing of states and decides nothing.
 * What holds for every store (the shared suite checks it):
 *
 * - When `put` has resolved, the record survives a crash of the process or of the machine. A crash before leaves
 *   the former record or the new one, never a mixture.
 * - Two puts of one id take effect in the order in which they were called, awaited or not.
 * - `load` gives each record once, oldest first. A damaged record is set aside and the others still load.
 * - `remove` of an unknown id is no error. After it has resolved the record does not come back.
 *
 * Not promised: that two processes may write one id. A job belongs to the process that took it.
 */
import type { JobRecord } from './job.js';

export interface JobStore {
  load(): Promise<readonly JobRecord[]>;
  /** Throws system errors; the former record is then still there. */
  put(record: JobRecord): Promise<void>;
  remove(id: string): Promise<void>;
}

/** Keeps records as long as the process lives. */
export function createMemoryStore(): JobStore {
  const records = new Map<string, JobRecord>();
  return {
    load: () => Promise.resolve([...records.values()].toSorted((a, b) => a.createdAt - b.createdAt)),
    put(record) {
      records.set(record.id, record);
      return Promise.resolve();
    },
    remove(id) {
      records.delete(id);
      return Promise.resolve();
    },
  };
}
