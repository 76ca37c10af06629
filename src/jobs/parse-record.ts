/**
 * Reads a job record that lay on the disk, where anybody with an editor may have been at it. A field that is missing or
 * wrong makes the whole record a damaged one; half a record would be a job that ends twice or builds in a wrong place.
 */
import * as z from 'zod';

import { messageOf } from '../errors.js';
import { compilePhases } from '../esphome/progress.js';
import { dashboardId, deviceFromFile, fileName, formatConfiguration } from '../paths/index.js';
import { failureReasons, jobStates, type JobRecord } from './job.js';

/**
 * The record that `value` is. What names a place is derived again, so that a changed file cannot lead anywhere else.
 * Throws when it is none.
 */
export function parseRecord(value: unknown): JobRecord {
  const read = schema.parse(value);
  const device = deviceFromFile(read.file);
  const configuration = formatConfiguration({ dashboardId: read.dashboardId, device }, read.file);
  return { ...read, device, configuration };
}

const count = z.int().min(0);
const time = z.number().min(0);

const schema = z.object({
  id: z.string(),
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
  /** It waited for something of that process. */
  waiting: z.unknown().transform(() => null),
  failureReason: z.enum(failureReasons).nullable(),
  errorMessage: z.string(),
  interrupted: z.boolean(),
  createdAt: time,
  startedAt: time.nullable(),
  finishedAt: time.nullable(),
  fetchedAt: time.nullable().default(null),
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
  bundle: z
    .object({
      ...{ bytes: count, members: count, contentSha256: z.string(), esphomeVersion: z.string().nullable() },
      hints: z.object({ buildPath: z.boolean(), remoteParts: z.boolean(), webFiles: z.boolean() }),
    })
    .nullable()
    .default(null),
  requeued: z.boolean().default(false),
});

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
