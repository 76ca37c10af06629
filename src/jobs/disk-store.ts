/**
 * Job records on disk: one JSON file per job, replaced atomically, with the owning process in its name.
 *
 * A single file for all jobs would grow with the history, be rewritten at every step of every job, and lose the whole
 * history when damaged. With the owner in the name, one rename takes over the job of a dead owner: of two receivers
 * that try, one finds nothing to rename, and a crash at any moment leaves the record in place. An unreadable record is
 * renamed and kept for an operator; it is never overwritten.
 */
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as yieldToOthers } from 'node:timers/promises';

import { createKeyedQueue } from '../async/calls.js';
import { makeDirectory } from '../disk/atomic-write.js';
import { readJsonFileSync, writeJsonFile } from '../disk/json-file.js';
import { namesIn } from '../disk/names.js';
import { ownMaker, standingOf, type Standing } from '../disk/names.js';
import { hostFaultOf, systemCode } from '../errors.js';
import { findSilent } from '../locks/presence.js';
import type { Log } from '../log.js';
import { isTerminal, type JobRecord, parseRecord } from './record.js';
import type { JobStore } from './store.js';

const idShape = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** The id, and the maker's name; a record without one has no owner. */
const nameShape =
  /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.(\d{1,10}-\d{1,20}-[0-9a-f]{12}))?\.json$/;

const readsAtOnce = 32;
const format = { maxBytes: 1_048_576, parse: parseRecord };

/** The ids of live jobs that stores in this process own. */
const atWork = new Set<string>();

export interface DiskStoreOptions {
  readonly dir: string;
  readonly presenceDir: string;
  /** How long a receiver whose process is not visible can be silent before it counts as gone. */
  readonly watchMs: number;
  readonly log: Log;
}

interface RecordEntry {
  readonly name: string;
  readonly id: string;
  readonly maker: string;
}

/** Opens or creates a store. Receivers on one disk can share the directory. Throws system errors. */
export async function openDiskStore({ dir, presenceDir, watchMs, log }: DiskStoreOptions): Promise<JobStore> {
  for (const place of [dir, presenceDir]) await makeDirectory(place);
  const writes = createKeyedQueue();
  const mine = new Set<string>();
  /** File names of ended records written by others. */
  const foreign = new Map<string, string>();
  /** Live records whose owner's process is not visible. */
  const unseen: RecordEntry[] = [];

  function fileOf(id: string): string {
    if (!idShape.test(id)) throw new TypeError('a job id is a UUID');
    return join(dir, foreign.get(id) ?? nameOf(id));
  }

  function claimId(id: string): void {
    atWork.add(id);
    mine.add(id);
  }

  /** Makes this store the owner of a live record. False when another store was faster. */
  async function claim({ name, id }: RecordEntry): Promise<boolean> {
    if (atWork.has(id)) return mine.has(id);
    claimId(id);
    try {
      await rename(join(dir, name), join(dir, nameOf(id)));
      return true;
    } catch (error) {
      releaseJob(id);
      if (systemCode(error) === 'ENOENT') return false;
      throw error;
    }
  }

  function releaseJob(id: string): void {
    atWork.delete(id);
    mine.delete(id);
  }

  /** The record if it has ended or now belongs to this store. */
  async function loadEntry(entry: RecordEntry, standing: Standing | 'silent'): Promise<JobRecord | null> {
    const record = await readIfReadable(dir, entry, log);
    if (record === null) return null;
    if (isTerminal(record)) {
      if (!mine.has(entry.id)) foreign.set(entry.id, entry.name);
      return record;
    }
    if (standing === 'unknown') unseen.push(entry);
    const isLeft = standing === 'gone' || standing === 'silent';
    if (!isLeft || !(await claim(entry))) return null;
    // A silent owner can have written it since.
    return standing === 'gone' ? record : readIfReadable(dir, { ...entry, name: nameOf(entry.id) }, log);
  }

  /** A few at a time: one after the other, thousands of records take longer than peers wait. */
  async function loadEntries(
    entries: readonly RecordEntry[],
    standingOfEach: (entry: RecordEntry) => Standing | 'silent',
  ): Promise<JobRecord[]> {
    const records: JobRecord[] = [];
    const rest = entries.values();
    async function loadNext(): Promise<void> {
      for (const entry of rest) {
        const record = await loadEntry(entry, standingOfEach(entry));
        if (record !== null) records.push(record);
      }
    }
    const ends = await Promise.allSettled(Array.from({ length: readsAtOnce }, loadNext));
    const failed = ends.find((end) => end.status === 'rejected');
    if (failed) {
      // A later store in this process must find them again.
      for (const id of mine) releaseJob(id);
      throw failed.reason;
    }
    return records.toSorted((a, b) => a.createdAt - b.createdAt);
  }

  return {
    async load() {
      unseen.length = 0;
      const standings = new Map<string, Standing | 'silent'>();
      return loadEntries(await entriesOf(dir), ({ maker }) => {
        const standing = standings.get(maker) ?? ownerStanding(maker);
        standings.set(maker, standing);
        return standing;
      });
    },
    async loadLeft(signal) {
      const waiting = unseen.splice(0);
      if (waiting.length === 0) return [];
      const makers = new Set(waiting.map(({ maker }) => maker));
      const silent = await findSilent(presenceDir, makers, { watchMs, signal });
      return loadEntries(
        waiting.filter(({ maker }) => silent.has(maker)),
        () => 'silent',
      );
    },
    async put(record) {
      const file = fileOf(record.id);
      claimId(record.id);
      await writes.run(record.id, () => writeJsonFile(file, record));
    },
    async remove(id) {
      const file = fileOf(id);
      await writes.run(id, () => rm(file, { force: true }));
      foreign.delete(id);
      releaseJob(id);
    },
    async close() {
      await writes.idle();
      for (const id of mine) releaseJob(id);
    },
  };
}

/** The ids of all records in a store's directory, whoever owns them. Throws system errors. */
export async function idsOnDisk(dir: string): Promise<readonly string[]> {
  return (await entriesOf(dir)).map(({ id }) => id);
}

/** Whether a job with this id is recorded and has not ended, whoever owns it. Throws system errors. */
export async function isLiveOnDisk(dir: string, id: string, log: Log): Promise<boolean> {
  for (const entry of (await entriesOf(dir)).filter((one) => one.id === id)) {
    const record = await readRecord(dir, entry, log);
    if (record !== null) return !isTerminal(record);
  }
  return false;
}

/** A record that cannot be read now stays where it is, and does not keep the others from their jobs. */
async function readIfReadable(dir: string, entry: RecordEntry, log: Log): Promise<JobRecord | null> {
  try {
    return await readRecord(dir, entry, log);
  } catch (error) {
    if (!['EIO', 'EACCES', 'EPERM'].includes(systemCode(error) ?? '')) throw error;
    log.error({ file: join(dir, entry.name), err: error }, 'job record unreadable, left for the next start');
    return null;
  }
}

async function entriesOf(dir: string): Promise<RecordEntry[]> {
  return (await namesIn(dir)).flatMap((name) => {
    const [, id, maker = ''] = nameShape.exec(name) ?? [];
    return id === undefined ? [] : [{ name, id, maker }];
  });
}

function nameOf(id: string): string {
  return `${id}.${ownMaker()}.json`;
}

/** This process counts as silent: `atWork` already lists the jobs of its own stores. */
function ownerStanding(maker: string): Standing | 'silent' {
  if (maker === ownMaker()) return 'silent';
  return maker === '' ? 'gone' : standingOf(maker);
}

/** Null for a record that is gone or damaged. Throws other system errors. */
async function readRecord(dir: string, { name, id }: RecordEntry, log: Log): Promise<JobRecord | null> {
  const file = join(dir, name);
  // A synchronous read, because the asynchronous one takes ten times as long; other work runs between two reads.
  await yieldToOthers();
  try {
    const record = readJsonFileSync(file, format);
    if (record.id !== id) throw new TypeError(`wrong job id in the record: expected ${id}, got ${record.id}`);
    return record;
  } catch (error) {
    // Another receiver removed it or took it over in the meantime.
    if (systemCode(error) === 'ENOENT') return null;
    if (hostFaultOf(error) !== null) throw error;
    log.warn({ file, err: error }, 'job record damaged, set aside');
    await rename(file, `${file}.damaged`).catch((err: unknown) => {
      log.warn({ file, err }, 'damaged job record not set aside');
    });
    return null;
  }
}
