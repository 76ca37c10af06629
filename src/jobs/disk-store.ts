/**
 * Job records on disk: one JSON file for each, replaced atomically, with the process that works on the job in its name.
 *
 * One file a job, because a single file for all grows with the history, is rewritten at every step of every job,
 * and takes the whole history with it when it is damaged. The owner is in the name, because then one rename takes a
 * dead owner's job over: of two receivers that try, one finds nothing to rename, and whatever moment one dies in, the
 * record is there. A record that cannot be read is renamed and kept for a person to look at; it is never overwritten.
 */
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';

import { createKeyedQueue } from '../async/serial-queue.js';
import { readJsonFileSync, writeJsonFile } from '../disk/json-file.js';
import { ownMaker, standingOf, type Standing } from '../disk/temporary.js';
import { systemCode } from '../errors.js';
import { findSilent } from '../locks/presence.js';
import type { Log } from '../log.js';
import { isTerminal, type JobRecord, parseRecord } from './record.js';
import type { JobStore } from './store.js';

const idShape = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** The id, and the maker's name; without one it belongs to nobody. */
const nameShape =
  /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.(\d{1,10}-\d{1,20}-[0-9a-f]{12}))?\.json$/;

const readsAtOnce = 32;
/** Far larger than a record can be. */
const format = { maxBytes: 1_048_576, parse: parseRecord };

/** The ids of live jobs that a store in this process is at work on. */
const atWork = new Set<string>();

export interface DiskStoreOptions {
  readonly dir: string;
  /** Where receivers show that they are at work. */
  readonly presenceDir: string;
  /** How long a receiver whose process cannot be seen may be silent before it counts as gone. */
  readonly watchMs: number;
  readonly log: Log;
}

interface RecordEntry {
  readonly name: string;
  readonly id: string;
  readonly maker: string;
}

/** Opens, or begins, a store. Receivers on one disk may share the directory. Throws system errors. */
export async function openDiskStore({ dir, presenceDir, watchMs, log }: DiskStoreOptions): Promise<JobStore> {
  for (const place of [dir, presenceDir]) await mkdir(place, { recursive: true, mode: 0o700 });
  /** Work on the record of one id. */
  const turns = createKeyedQueue();
  const mine = new Set<string>();
  /** Names of ended records that others have written. */
  const foreign = new Map<string, string>();
  /** Live records whose owner cannot be seen from here. */
  const unseen: RecordEntry[] = [];

  function fileOf(id: string): string {
    if (!idShape.test(id)) throw new TypeError('a job id is a UUID');
    return join(dir, foreign.get(id) ?? nameOf(id));
  }

  function hold(id: string): void {
    atWork.add(id);
    mine.add(id);
  }

  /** Makes a live record this store's. False when another is quicker. */
  async function claim({ name, id }: RecordEntry): Promise<boolean> {
    if (atWork.has(id)) return mine.has(id);
    hold(id);
    try {
      await rename(join(dir, name), join(dir, nameOf(id)));
      return true;
    } catch (error) {
      letGo(id);
      if (systemCode(error) === 'ENOENT') return false;
      throw error;
    }
  }

  function letGo(id: string): void {
    atWork.delete(id);
    mine.delete(id);
  }

  /** The record when it has ended or is now this store's. */
  async function take(entry: RecordEntry, standing: Standing | 'silent'): Promise<JobRecord | null> {
    const record = await readRecord(dir, entry, log);
    if (record === null) return null;
    if (isTerminal(record)) {
      if (!mine.has(entry.id)) foreign.set(entry.id, entry.name);
      return record;
    }
    if (standing === 'unknown') unseen.push(entry);
    const isLeft = standing === 'gone' || standing === 'silent';
    if (!isLeft || !(await claim(entry))) return null;
    // Who is only silent may have written it since.
    return standing === 'gone' ? record : readRecord(dir, { ...entry, name: nameOf(entry.id) }, log);
  }

  /** A few at a time: one after the other, thousands of records take longer than peers wait. */
  async function takeAll(
    entries: readonly RecordEntry[],
    standingOfEach: (entry: RecordEntry) => Standing | 'silent',
  ): Promise<JobRecord[]> {
    const records: JobRecord[] = [];
    const rest = entries.values();
    async function takeNext(): Promise<void> {
      for (const entry of rest) {
        const record = await take(entry, standingOfEach(entry));
        if (record !== null) records.push(record);
      }
    }
    await Promise.all(Array.from({ length: readsAtOnce }, takeNext));
    return records.toSorted((a, b) => a.createdAt - b.createdAt);
  }

  return {
    async load() {
      unseen.length = 0;
      const standings = new Map<string, Standing | 'silent'>();
      return takeAll(await entriesOf(dir), ({ maker }) => {
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
      return takeAll(
        waiting.filter(({ maker }) => silent.has(maker)),
        () => 'silent',
      );
    },
    async put(record) {
      const file = fileOf(record.id);
      hold(record.id);
      await turns.run(record.id, () => writeJsonFile(file, record));
    },
    async remove(id) {
      const file = fileOf(id);
      await turns.run(id, () => rm(file, { force: true }));
      foreign.delete(id);
      letGo(id);
    },
    async close() {
      await turns.idle();
      for (const id of mine) letGo(id);
    },
  };
}

/** The ids of all records in a store's directory, whoever is at work on them. Throws system errors. */
export async function idsOnDisk(dir: string): Promise<readonly string[]> {
  return (await entriesOf(dir)).map(({ id }) => id);
}

/** Whether a job of that id is on record and has not ended, whoever is at work on it. Throws system errors. */
export async function isLiveOnDisk(dir: string, id: string, log: Log): Promise<boolean> {
  for (const entry of (await entriesOf(dir)).filter((one) => one.id === id)) {
    const record = await readRecord(dir, entry, log);
    if (record !== null) return !isTerminal(record);
  }
  return false;
}

async function entriesOf(dir: string): Promise<RecordEntry[]> {
  return (await readdir(dir)).flatMap((name) => {
    const [, id, maker = ''] = nameShape.exec(name) ?? [];
    return id === undefined ? [] : [{ name, id, maker }];
  });
}

function nameOf(id: string): string {
  return `${id}.${ownMaker()}.json`;
}

/** This process counts as silent, for a store in it that is at work on a job says so itself. */
function ownerStanding(maker: string): Standing | 'silent' {
  if (maker === ownMaker()) return 'silent';
  return maker === '' ? 'gone' : standingOf(maker);
}

async function readRecord(dir: string, { name, id }: RecordEntry, log: Log): Promise<JobRecord | null> {
  const file = join(dir, name);
  // Read in one go, for in this thread the other way takes ten times as long; but other work has its turn in between.
  await turn();
  try {
    const record = readJsonFileSync(file, format);
    if (record.id !== id) throw new TypeError('it is the record of another job');
    return record;
  } catch (error) {
    // Another receiver has forgotten it meanwhile, or taken it over.
    if (systemCode(error) === 'ENOENT') return null;
    log.warn({ file, err: error }, 'job record unreadable, set aside');
    await rename(file, `${file}.damaged`);
    return null;
  }
}
