/** A job store that lives as long as its process, and shows what the contract leaves open to a store on disk. */
import { isTerminal, type JobRecord } from '../../src/jobs/record.js';
import type { JobStore } from '../../src/jobs/store.js';

/** Shared by stores in memory, as a directory is by those on disk. */
export interface MemoryPlace {
  readonly records: Map<string, JobRecord>;
  /** The store that owns each live job. */
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
