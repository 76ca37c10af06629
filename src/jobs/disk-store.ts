/**
 * Job records on disk: one JSON file for each, replaced atomically.
 *
 * One file a job, because a single file for all grows with the history, is rewritten at every step of every job,
 * and takes the whole history with it when it is damaged. A record that cannot be read is renamed and kept for a
 * person to look at; it is never overwritten.
 */
import { mkdir, readFile, readdir, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';

import { z } from 'zod';

import { writeAtomic } from '../disk/atomic-write.js';
import { ownMaker, standingOf } from '../disk/temporary.js';
import { messageOf, systemCode } from '../errors.js';
import { compilePhases } from '../esphome/progress.js';
import type { Log } from '../log.js';
import { dashboardId, deviceFromFile, fileName, formatConfiguration } from '../paths/index.js';
import { failureReasons, isTerminal, jobStates, type JobRecord } from './job.js';
import type { JobStore } from './store.js';

const idShape = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * Opens, or begins, a store. Receivers on one disk may share the directory: the jobs that another one is at work on
 * are not loaded. Throws system errors.
 */
export async function openDiskStore({
  dir,
  log,
}: {
  readonly dir: string;
  readonly log: Log;
}): Promise<JobStore> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const tails = new Map<string, Promise<void>>();

  /** Runs `work` after all earlier work on the same id, whether that succeeded or not. */
  async function inOrder(id: string, work: () => Promise<void>): Promise<void> {
    const before = tails.get(id);
    const done = Promise.allSettled([before]).then(work);
    tails.set(id, done);
    try {
      await done;
    } finally {
      if (tails.get(id) === done) tails.delete(id);
    }
  }

  return {
    async load() {
      const records: JobRecord[] = [];
      for (const name of await readdir(dir)) {
        if (!name.endsWith('.json')) continue;
        const record = await readRecord(join(dir, name), log);
        if (record !== null) records.push(record);
      }
      return records.toSorted((a, b) => a.createdAt - b.createdAt);
    },
    async put(record) {
      const file = recordFile(dir, record.id);
      const text = `${JSON.stringify({ ...record, owner: ownMaker() })}\n`;
      await inOrder(record.id, () => writeAtomic(file, text));
    },
    async remove(id) {
      const file = recordFile(dir, id);
      await inOrder(id, () => rm(file, { force: true }));
    },
  };
}

/** The ids of all records in a store's directory, whoever is at work on them. Throws system errors. */
export async function idsOnDisk(dir: string): Promise<readonly string[]> {
  const names = (await readdir(dir)).filter((name) => name.endsWith('.json'));
  return names.map((name) => basename(name, '.json'));
}

function recordFile(dir: string, id: string): string {
  if (!idShape.test(id)) throw new TypeError('a job id is a UUID');
  return join(dir, `${id}.json`);
}

async function readRecord(file: string, log: Log): Promise<JobRecord | null> {
  try {
    const { record, owner } = parseRecord(JSON.parse(await readFile(file, 'utf8')));
    if (basename(file) !== `${record.id}.json`) throw new TypeError('it is the record of another job');
    return isTerminal(record) || !isAnothers(owner) ? record : null;
  } catch (error) {
    // Another receiver has forgotten it meanwhile.
    if (systemCode(error) === 'ENOENT') return null;
    log.warn({ file, error: messageOf(error) }, 'a job record cannot be read and is set aside');
    await rename(file, `${file}.damaged`);
    return null;
  }
}

function isAnothers(owner: string): boolean {
  return owner !== ownMaker() && standingOf(owner) === 'alive';
}

const count = z.int().min(0);
const time = z.number().min(0);

const schema = z.object({
  id: z.string().regex(idShape),
  dashboardId: z.string().transform(checked(dashboardId)),
  peerLabel: z.string(),
  peerJobId: z.string(),
  file: z.string().transform(checked(fileName)),
  target: z.enum(['compile', 'clean']),
  bundleSha256: z.string(),
  targetVersion: z.string(),
  skipBootloader: z.boolean(),
  deviceName: z.string(),
  deviceFriendlyName: z.string(),
  state: z.enum(jobStates),
  failureReason: z.enum(failureReasons).nullable(),
  errorMessage: z.string(),
  interrupted: z.boolean(),
  createdAt: time,
  startedAt: time.nullable(),
  finishedAt: time.nullable(),
  esphomeVersion: z.string().nullable(),
  progress: z.object({
    phase: z.enum(compilePhases),
    percent: z.number().nullable(),
    compiled: count,
    total: count,
    expected: count,
  }),
  attempt: count,
  artifacts: z
    .object({ bytes: count, sha256: z.string(), firmwareOffset: z.enum(['0x10000', '0x0']) })
    .nullable(),
  cached: z.boolean().default(false),
  resultKey: z.string().nullable().default(null),
  /** The process that wrote it. */
  owner: z.string().default(''),
});

/** What names a place is derived again, so that a changed file cannot lead anywhere else. */
function parseRecord(value: unknown): { readonly record: JobRecord; readonly owner: string } {
  const { owner, ...read } = schema.parse(value);
  const device = deviceFromFile(read.file);
  const configuration = formatConfiguration({ dashboardId: read.dashboardId, device }, read.file);
  return { record: { ...read, device, configuration }, owner };
}

function checked<T>(check: (text: string) => T): (text: string, context: z.RefinementCtx) => T {
  return (text, context) => {
    try {
      return check(text);
    } catch (error) {
      context.addIssue({ code: 'custom', message: messageOf(error) });
      return z.NEVER;
    }
  };
}
