/**
 * One job from its first byte to its end, as plain data, and the only function that may change its state.
 *
 * Every job has exactly one terminal state. A second one reported under the same id once told a client that its
 * new build was over when an old one had been cancelled; here the second is no legal step and gives null.
 */
import * as z from 'zod';

import type { ArtifactFacts } from '../artifacts/store.js';
import type { BundleFacts } from '../bundles/store.js';
import { messageOf } from '../errors.js';
import { type Progress, compilePhases } from '../esphome/progress.js';
import {
  type Configuration,
  type DashboardId,
  type DeviceSegment,
  type FileName,
  dashboardId,
  deviceFromFile,
  fileName,
  formatConfiguration,
} from '../paths/index.js';
import type { WaitReason } from './waiting.js';

export const jobStates = ['receiving', 'queued', 'running', 'completed', 'failed', 'cancelled'] as const;
export type JobState = (typeof jobStates)[number];

export const failureReasons = [
  'bundle',
  'config',
  'toolchain',
  'compile',
  'resource',
  'lock_lost',
  'wrote_elsewhere',
  'provision',
  'internal',
] as const;
export type FailureReason = (typeof failureReasons)[number];

/** What a peer asks for; every field is checked by who reads it from the wire. */
export interface JobRequest {
  readonly dashboardId: DashboardId;
  readonly peerLabel: string;
  /** The peer's own id for it. A peer may use one twice, after its session was lost. */
  readonly peerJobId: string;
  readonly file: FileName;
  readonly device: DeviceSegment;
  readonly target: 'compile' | 'clean';
  readonly bundleSha256: string;
  /** The ESPHome version to build with; empty for whichever is here. */
  readonly targetVersion: string;
  readonly skipBootloader: boolean;
  readonly deviceName: string;
  readonly deviceFriendlyName: string;
}

export interface JobRecord extends JobRequest {
  /** Ours; a UUID. */
  readonly id: string;
  readonly configuration: Configuration;
  readonly state: JobState;
  /** What is known of its bundle once that is kept for it through a restart; null before. */
  readonly bundle: BundleFacts | null;
  /** Why nothing happens just now; null when something does. Names other peers: for the operator only. */
  readonly waiting: WaitReason | null;
  /** Of a failed job; null otherwise. */
  readonly failureReason: FailureReason | null;
  /** Of a failed or cancelled job: a sentence for people, without host paths. Empty otherwise. */
  readonly errorMessage: string;
  /** Ended by a stop or crash of this server that has cost its bundle: its peer may submit it again under the same id. */
  readonly interrupted: boolean;
  /** Milliseconds since 1970, as the three below. */
  readonly createdAt: number;
  readonly startedAt: number | null;
  readonly finishedAt: number | null;
  /** When its result was last sent to its end. */
  readonly fetchedAt: number | null;
  /** The version that really built it; null before. */
  readonly esphomeVersion: string | null;
  readonly progress: Progress;
  /** 2 when it was run again by itself after its lock was lost. */
  readonly attempt: number;
  /** Its server ended while it ran, and it was queued again. That is done once. */
  readonly requeued: boolean;
  /** Of a completed compile. */
  readonly artifacts: ArtifactFacts | null;
  /** Completed without a compile, with the result of an earlier job. */
  readonly cached: boolean;
  /** Of a compile whose result may be used again: a hash of all that decided it. Null otherwise. */
  readonly resultKey: string | null;
}

export type Outcome =
  | {
      readonly to: 'completed';
      readonly artifacts: ArtifactFacts | null;
      readonly facts?: Partial<Pick<JobRecord, 'cached' | 'resultKey' | 'progress'>>;
    }
  | { readonly to: 'failed'; readonly reason: FailureReason; readonly message: string }
  | { readonly to: 'cancelled'; readonly message: string };

export type Step =
  { readonly to: 'queued'; readonly bundle: BundleFacts | null } | { readonly to: 'running' } | Outcome;

const nextStates: Readonly<Record<JobState, readonly JobState[]>> = {
  receiving: ['queued', 'failed', 'cancelled'],
  queued: ['running', 'failed', 'cancelled'],
  running: ['completed', 'failed', 'cancelled'],
  completed: [],
  failed: [],
  cancelled: [],
};

/** The record after the step at time `now` (milliseconds), or null when the step is not legal from here. */
export function advance(record: JobRecord, step: Step, now: number): JobRecord | null {
  if (!nextStates[record.state].includes(step.to)) return null;
  return { ...record, state: step.to, waiting: null, ...factsOf(step, now) };
}

function factsOf(step: Step, now: number): Partial<JobRecord> {
  if (step.to === 'queued') return { bundle: step.bundle };
  if (step.to === 'running') return { startedAt: now };
  if (step.to === 'completed') return { finishedAt: now, artifacts: step.artifacts, ...step.facts };
  const failureReason = step.to === 'failed' ? step.reason : null;
  return { finishedAt: now, failureReason, errorMessage: step.message };
}

export function isTerminal({ state }: Pick<JobRecord, 'state'>): boolean {
  return nextStates[state].length === 0;
}

/** When anybody last had to do with the job, in milliseconds since 1970: it was made, ended or its result was fetched. */
export function lastUse({ createdAt, finishedAt, fetchedAt }: JobRecord): number {
  return Math.max(createdAt, finishedAt ?? 0, fetchedAt ?? 0);
}

/** Whether the two are for the same work, so that the newer one replaces the older one. */
export function isSameWork(a: JobRequest, b: JobRequest): boolean {
  return a.dashboardId === b.dashboardId && a.device === b.device && a.target === b.target;
}

/**
 * Reads a job record that lay on the disk, where anybody with an editor may have been at it. A field that is missing or
 * wrong makes the whole record a damaged one; half a record would be a job that ends twice or builds in a wrong place.
 */

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
      remoteContent: z.object({ buildPath: z.boolean(), remoteParts: z.boolean(), webFiles: z.boolean() }),
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
