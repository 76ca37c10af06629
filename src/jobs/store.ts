/**
 * The contract of the job store (short because it only is that), which keeps records beyond the process.
 *
 * A store keeps the last record put for each id. Of the states it only knows whether a job has ended, and it makes no
 * decisions. Every store guarantees (checked by the shared suite):
 *
 * - When `put` has resolved, the record survives a crash of the process or the machine. A crash before leaves the old
 *   record or the new one, never a mixture.
 * - Two puts of one id take effect in the order of the calls, awaited or not.
 * - A live job belongs to the store that put its record, until that store is closed or its process is gone. Then it
 *   belongs to the first one that loads it: no two stores return the same live job, and none is lost between them.
 *   Ended jobs are returned to all.
 * - Each record is returned once, oldest first. A damaged one is set aside and the others still load.
 * - `remove` of an unknown id does nothing. After it has resolved the record does not reappear.
 *
 * Not guaranteed: that two stores can put one id. A record that was never put is lost with the process.
 */
import type { JobRecord } from './record.js';

export interface JobStore {
  /** Returns the ended jobs, and the live ones that now belong to this store. */
  load(): Promise<readonly JobRecord[]>;
  /**
   * Call after `load`. Returns the jobs of owners that `load` could not judge and that prove to be gone, which takes
   * as long as watching them. Throws the signal's reason.
   */
  loadLeft(signal: AbortSignal): Promise<readonly JobRecord[]>;
  /** Throws system errors; the old record is then still there. */
  put(record: JobRecord): Promise<void>;
  remove(id: string): Promise<void>;
  /** Resolves when all puts are stored and the live jobs have no owner. Do not call `put` afterwards. */
  close(): Promise<void>;
}
