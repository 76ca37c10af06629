/**
 * Where job records outlive the process: the contract, and the version for tests that forgets.
 *
 * A store keeps one record for each id, the last that was put. It knows nothing of states but whether a job has
 * ended, and decides nothing. What holds for every store (the shared suite checks it):
 *
 * - When `put` has resolved, the record survives a crash of the process or of the machine. A crash before leaves
 *   the former record or the new one, never a mixture.
 * - Two puts of one id take effect in the order in which they were called, awaited or not.
 * - A live job belongs to the store that put its record, until that is closed or its process is gone. Then it
 *   belongs to the first one that loads it: no two ever give the same live job, and none is lost between them. Ended
 *   jobs are given to all.
 * - Each record is given once, oldest first. A damaged one is set aside and the others still load.
 * - `remove` of an unknown id is no error. After it has resolved the record does not come back.
 *
 * Not promised: that two stores may put one id. What was begun in memory and never put is lost with the process.
 */
import { isTerminal, type JobRecord } from './record.js';

export interface JobStore {
  /** The ended jobs, and the live ones that belong to this store from now on, if they did not before. */
  load(): Promise<readonly JobRecord[]>;
  /**
   * To be called after `load`: jobs of owners of whom `load` could not tell whether they are gone, and who are. It takes
   * as long as that takes. Throws the signal's reason.
   */
  loadLeft(signal: AbortSignal): Promise<readonly JobRecord[]>;
  /** Throws system errors; the former record is then still there. */
  put(record: JobRecord): Promise<void>;
  remove(id: string): Promise<void>;
  /** Resolves when all that was put is stored and the live jobs belong to nobody. Nothing is put afterwards. */
  close(): Promise<void>;
}

/** What stores in memory share, as those on disk share a directory. */
export interface MemoryPlace {
  readonly records: Map<string, JobRecord>;
  /** The store that each live job belongs to. */
  readonly owners: Map<string, JobStore>;
}

/** Keeps records as long as the process lives. */
export function createMemoryStore(place: MemoryPlace = { records: new Map(), owners: new Map() }): JobStore {
  const { records, owners } = place;
  const store: JobStore = {
    load() {
      const given = [...records.values()].filter(
        (record) => isTerminal(record) || (owners.get(record.id) ?? store) === store,
      );
      for (const { id } of given) owners.set(id, store);
      return Promise.resolve(given.toSorted((a, b) => a.createdAt - b.createdAt));
    },
    loadLeft: () => Promise.resolve([]),
    put(record) {
      records.set(record.id, record);
      owners.set(record.id, store);
      return Promise.resolve();
    },
    remove(id) {
      records.delete(id);
      owners.delete(id);
      return Promise.resolve();
    },
    close() {
      for (const [id, owner] of owners) if (owner === store) owners.delete(id);
      return Promise.resolve();
    },
  };
  return store;
}
