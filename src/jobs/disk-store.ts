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
import { messageOf } from '../errors.js';
import { compilePhases } from '../esphome/progress.js';
import type { Log } from '../log.js';
import { dashboardId, deviceFromFile, fileName, formatConfiguration } from '../paths/index.js';
import { failureReasons, jobStates, type JobRecord } from './job.js';
import type { JobStore } from './store.js';

const idShape = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Opens, or begins, a store in a directory that no other process writes to. Throws system errors. */
export async function openDiskStore({
  dir,
  log,
}: {
  readonly dir: string;
  readonly log: Log;
}): Promise<JobStore> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  for (const name of await readdir(dir)) {
    if (name.endsWith('.tmp')) await rm(join(dir, name), { force: true });
  }
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
      await inOrder(record.id, () => writeAtomic(file, `${JSON.stringify(record)}\n`));
    },
    async remove(id) {
      const file = recordFile(dir, id);
      await inOrder(id, () => rm(file, { force: true }));
    },
  };
}

function recordFile(dir: string, id: string): string {
  if (!idShape.test(id)) throw new TypeError('a job id is a UUID');
  return join(dir, `${id}.json`);
}

async function readRecord(file: string, log: Log): Promise<JobRecord | null> {
  try {
    const record = parseRecord(JSON.parse(await readFile(file, 'utf8')));
    if (basename(file) !== `${record.id}.json`) throw new TypeError('it is the record of another job');
    return record;
  } catch (error) {
    log.warn({ file, error: messageOf(error) }, 'a job record cannot be read and is set aside');
    await rename(file, `${file}.damaged`);
    return null;
  }
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
});

/** What names a place is derived again, so that a changed file cannot lead anywhere else. */
function parseRecord(value: unknown): JobRecord {
  const read = schema.parse(value);
  const device = deviceFromFile(read.file);
  return {
    ...read,
    device,
    configuration: formatConfiguration({ dashboardId: read.dashboardId, device }, read.file),
  };
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
