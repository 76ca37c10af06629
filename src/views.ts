/**
 * Jobs, peers, requests and events as a host sees them: in TypeScript, and as JSON in the admin routes, the event stream
 * and `serve --json`. All have one shape and one spelling (camelCase), and a field of an internal record is visible only if
 * it is named here.
 */
import type { ArtifactFacts } from './artifacts/store.js';
import type { Progress } from './esphome/progress.js';
import type { JobEvent } from './jobs/job-service.js';
import type { LocalJob, QueueStatus } from './jobs/local-work.js';
import type { FailureReason, JobRecord, JobState } from './jobs/record.js';
import { waitingText, type WaitReason } from './jobs/waiting.js';
import type { DashboardId } from './paths/index.js';
import type { PairingEvent } from './peers/pairing.js';
import type { Peer } from './peers/peer-row.js';
import type { PendingPeer } from './peers/pending.js';
import { pinPictures, pinText, type PinPicture } from './protocol/fingerprint.js';
import type { SessionEvent } from './server/sessions.js';

/** A job of a paired dashboard. Times are in milliseconds since 1970. */
export interface JobView {
  /** The receiver's id of the job, a UUID. */
  readonly id: string;
  readonly dashboardId: DashboardId;
  readonly peerLabel: string;
  /** The dashboard's own id of the job. Several jobs can share one, because a dashboard can submit a lost job again. */
  readonly peerJobId: string;
  /** The name of the YAML file. */
  readonly file: string;
  /** The directory of the device, derived from the file name. */
  readonly device: string;
  readonly deviceName: string;
  readonly deviceFriendlyName: string;
  /** The string that names this build to the resolver. */
  readonly configuration: string;
  readonly target: 'compile' | 'clean';
  readonly state: JobState;
  /** Why the job waits; null when it does not. Names other dashboards, so show it to operators only. */
  readonly waiting: WaitReason | null;
  /** `waiting` as a sentence; null when the job does not wait. */
  readonly waitingText: string | null;
  /** Why the job failed; null for every other state. */
  readonly failureReason: FailureReason | null;
  /** A sentence for a failed or cancelled job, without host paths; empty otherwise. */
  readonly errorMessage: string;
  /** The ESPHome version that the dashboard asked for; empty for any. */
  readonly targetVersion: string;
  /** The ESPHome version that builds the job; null until it is chosen. */
  readonly esphomeVersion: string | null;
  readonly skipBootloader: boolean;
  readonly progress: Progress;
  readonly createdAt: number;
  readonly startedAt: number | null;
  readonly finishedAt: number | null;
  /** When the result was last downloaded to its end. */
  readonly fetchedAt: number | null;
  readonly bundleSha256: string;
  /** The packed result of a completed compile; null otherwise. */
  readonly artifacts: ArtifactFacts | null;
  /** Whether the job completed without a compile, with the result of an earlier one. */
  readonly cached: boolean;
}

/** One of the host's own builds, which waits for a slot or holds one. */
export interface LocalJobView extends LocalJob {
  /** `waiting` as a sentence; null when the build does not wait. */
  readonly waitingText: string | null;
}

/** A pin as people compare it. */
export interface Fingerprint {
  readonly pictures: readonly PinPicture[];
  /** The whole pin in groups of hex digits. */
  readonly text: string;
}

/** A pending pairing request. */
export interface RequestView {
  readonly dashboardId: DashboardId;
  /** SHA-256 of the dashboard's public key in lower-case hex. */
  readonly pin: string;
  readonly fingerprint: Fingerprint;
  readonly label: string;
  readonly friendlyName: string;
  readonly address: string;
}

/** An approved dashboard. */
export interface PeerView extends RequestView {
  readonly haAddon: boolean;
  /** The port at which the dashboard can be called back; 0 for none. */
  readonly connectBackPort: number;
  /** When the dashboard asked to pair, in milliseconds since 1970. */
  readonly pairedAt: number;
  /** Whether its session is open now. */
  readonly connected: boolean;
}

export type ReceiverEvent =
  /** The job has entered its state. A terminal state is reported once, when no process of the job is left. */
  | { readonly type: 'state'; readonly job: JobView }
  /** The job's `waiting` has changed. */
  | { readonly type: 'waiting'; readonly job: JobView }
  /** Phase or percentage of the job has changed. */
  | { readonly type: 'progress'; readonly job: JobView }
  /** The result of the job was downloaded to its end. */
  | { readonly type: 'fetched'; readonly job: JobView }
  /** One line of a build's output, with its line end. */
  | { readonly type: 'output'; readonly jobId: string; readonly line: string }
  /** The queue has changed: whether any build runs, and how many wait. */
  | { readonly type: 'queue'; readonly status: QueueStatus }
  | { readonly type: 'requested'; readonly request: RequestView }
  /** The request was rejected, or expired with the pairing window. */
  | { readonly type: 'withdrawn'; readonly dashboardId: DashboardId }
  | { readonly type: 'approved'; readonly peer: PeerView }
  | { readonly type: 'revoked'; readonly dashboardId: DashboardId }
  /** The pairing window opened, was extended or closed. */
  | { readonly type: 'window'; readonly isOpen: boolean; readonly closesInMs: number }
  /** The session of a dashboard was opened or closed. */
  | { readonly type: 'session'; readonly dashboardId: DashboardId; readonly connected: boolean }
  /** Two clients use one identity; the addresses are of the one that stays and of the one that was sent away. */
  | {
      readonly type: 'clones';
      readonly dashboardId: DashboardId;
      readonly addresses: readonly [string, string];
    };

export function jobView(record: JobRecord): JobView {
  return {
    id: record.id,
    dashboardId: record.dashboardId,
    peerLabel: record.peerLabel,
    peerJobId: record.peerJobId,
    file: record.file,
    device: record.device,
    deviceName: record.deviceName,
    deviceFriendlyName: record.deviceFriendlyName,
    configuration: record.configuration,
    target: record.target,
    state: record.state,
    waiting: record.waiting,
    waitingText: record.waiting && waitingText(record.waiting),
    failureReason: record.failureReason,
    errorMessage: record.errorMessage,
    targetVersion: record.targetVersion,
    esphomeVersion: record.esphomeVersion,
    skipBootloader: record.skipBootloader,
    progress: record.progress,
    createdAt: record.createdAt,
    startedAt: record.startedAt,
    finishedAt: record.finishedAt,
    fetchedAt: record.fetchedAt,
    bundleSha256: record.bundleSha256,
    artifacts: record.artifacts,
    cached: record.cached,
  };
}

export function localJobView(job: LocalJob): LocalJobView {
  return { ...job, waitingText: job.waiting && waitingText(job.waiting) };
}

export function fingerprintOf(pin: string): Fingerprint {
  return { pictures: pinPictures(pin), text: pinText(pin) };
}

export function requestView({ dashboardId, pin, label, friendlyName, address }: PendingPeer): RequestView {
  return { dashboardId, pin, fingerprint: fingerprintOf(pin), label, friendlyName, address };
}

export function peerView(peer: Peer, connected: boolean): PeerView {
  const { dashboardId, pin, label, friendlyName, address, haAddon, connectBackPort, pairedAt } = peer;
  return {
    ...{
      dashboardId,
      pin,
      fingerprint: fingerprintOf(pin),
      label,
      friendlyName,
      address,
      haAddon,
      connectBackPort,
    },
    // The peers file counts in seconds (Device Builder 1.26).
    ...{ pairedAt: Math.round(pairedAt * 1_000), connected },
  };
}

export function eventView(event: JobEvent | PairingEvent | SessionEvent): ReceiverEvent {
  if (event.type === 'output') return { type: event.type, jobId: event.job.id, line: event.line };
  if ('job' in event) return { type: event.type, job: jobView(event.job) };
  if (event.type === 'requested') return { type: event.type, request: requestView(event.request) };
  if (event.type === 'approved') return { type: event.type, peer: peerView(event.peer, false) };
  return event;
}
