/**
 * A job as plain data, the only function that changes its state, and the parser for records on disk.
 *
 * Every job has exactly one terminal state. A second one under the same id once told a client that its new build was
 * over when an old one had been cancelled; here a second terminal step is illegal and returns null.
 */
import * as z from 'zod';

import type { ArtifactFacts } from '../artifacts/pack.js';
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

/** A peer's request. The reader of the wire has validated every field. */
export interface JobRequest {
  readonly dashboardId: DashboardId;
  readonly peerLabel: string;
  /** The dashboard's own id of the job. Several jobs can share one, because a dashboard can submit a lost job again. */
  readonly peerJobId: string;
  /** The number of the lane on which it arrived, and to which its events go. */
  readonly lane: number;
  /** The name of the YAML file. */
  readonly file: FileName;
  /** The directory of the device, derived from the file name. */
  readonly device: DeviceSegment;
  readonly target: 'compile' | 'clean';
  readonly bundleSha256: string;
  /** The ESPHome version that the dashboard asked for; empty for any. */
  readonly targetVersion: string;
  readonly skipBootloader: boolean;
  readonly deviceName: string;
  readonly deviceFriendlyName: string;
}

/** The facts of a job that are visible outside. Times are in milliseconds since 1970. */
export interface JobFacts extends JobRequest {
  /** The receiver's id of the job, a UUID. */
  readonly id: string;
  /** The string that names this build to the resolver. */
  readonly configuration: Configuration;
  readonly state: JobState;
  /** Why the job waits; null when it does not. Names other dashboards, so show it to operators only. */
  readonly waiting: WaitReason | null;
  /** Why the job failed; null for every other state. */
  readonly failureReason: FailureReason | null;
  /** A sentence for a failed or cancelled job, without host paths; empty otherwise. */
  readonly errorMessage: string;
  readonly createdAt: number;
  readonly startedAt: number | null;
  readonly finishedAt: number | null;
  /** When the result was last downloaded to its end. */
  readonly fetchedAt: number | null;
  /** The ESPHome version that builds the job; null until it is chosen. */
  readonly esphomeVersion: string | null;
  readonly progress: Progress;
  /** The packed result of a completed compile; null otherwise. */
  readonly artifacts: ArtifactFacts | null;
  /** Whether the job completed without a compile, with the result of an earlier one. */
  readonly cached: boolean;
}

export interface JobRecord extends JobFacts {
  /** Set once the bundle is kept through a restart; null before. */
  readonly bundle: BundleFacts | null;
  /** Ended because this server lost its bundle: the peer can submit it again under the same id. */
  readonly interrupted: boolean;
  /** 2 after an automatic rerun because its lock was lost. */
  readonly attempt: number;
  /** Its server stopped while it ran, and it was queued again. That happens only once. */
  readonly requeued: boolean;
  /** For a compile whose result can be reused: a hash of all its inputs. Null otherwise. */
  readonly resultKey: string | null;
  /** The platform that is built for; null until the build starts, and if the configuration does not name it. */
  readonly platform: string | null;
}

/** A job as the modules that work on it see it. */
export interface QueuedJob {
  readonly record: Pick<JobRecord, 'target' | 'targetVersion' | 'waiting'>;
  readonly signal: AbortSignal;
  output(line: string): void;
  recordFacts(facts: Partial<Pick<JobRecord, 'esphomeVersion' | 'attempt' | 'waiting' | 'platform'>>): void;
}

export type Outcome =
  | {
      readonly to: 'completed';
      readonly artifacts: ArtifactFacts | null;
      readonly facts?: Partial<Pick<JobRecord, 'cached' | 'resultKey' | 'progress'>>;
    }
  | {
      readonly to: 'failed';
      readonly reason: FailureReason;
      readonly message: string;
      readonly facts?: Partial<Pick<JobRecord, 'interrupted'>>;
    }
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

/** The record after the step at time `now` (milliseconds), or null when the step is illegal in its state. */
export function advance(record: JobRecord, step: Step, now: number): JobRecord | null {
  if (!nextStates[record.state].includes(step.to)) return null;
  return { ...record, state: step.to, waiting: null, ...factsOf(step, now) };
}

function factsOf(step: Step, now: number): Partial<JobRecord> {
  if (step.to === 'queued') return { bundle: step.bundle };
  if (step.to === 'running') return { startedAt: now };
  if (step.to === 'completed') return { finishedAt: now, artifacts: step.artifacts, ...step.facts };
  const ended = { finishedAt: now, errorMessage: step.message };
  return step.to === 'failed' ? { ...ended, failureReason: step.reason, ...step.facts } : ended;
}

export function isTerminal({ state }: Pick<JobRecord, 'state'>): boolean {
  return nextStates[state].length === 0;
}

/** When the job was created, ended or fetched, whichever is latest, in milliseconds since 1970. */
export function lastUse({ createdAt, finishedAt, fetchedAt }: JobRecord): number {
  return Math.max(createdAt, finishedAt ?? 0, fetchedAt ?? 0);
}

/** Whether the newer of the two replaces the older. */
export function isSameWork(a: JobRequest, b: JobRequest): boolean {
  return a.dashboardId === b.dashboardId && a.device === b.device && a.target === b.target;
}

/**
 * Parses a record from the disk, where anybody can have edited it. Throws if any field is missing or wrong: half a
 * record would be a job that ends twice or builds in the wrong place. Fields that name a path are derived again, so
 * that an edited file cannot lead elsewhere.
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
  lane: z.int().min(1).default(1),
  skipBootloader: z.boolean(),
  deviceName: z.string(),
  deviceFriendlyName: z.string(),
  state: z.enum(jobStates),
  /** The reason to wait ended with its process. */
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
  platform: z.string().nullable().default(null),
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
