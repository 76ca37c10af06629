/**
 * Jobs, peers, requests and events as a host sees them: in TypeScript, and as JSON in the admin routes, the event stream
 * and `serve --json`. All have one shape and one spelling (camelCase), and a field of an internal record is visible only if
 * it is a fact of the job (`JobFacts`) or named here.
 */
import type { JobEvent } from './jobs/lifecycle.js';
import type { LocalJob, QueueStatus } from './jobs/local-work.js';
import type { JobFacts, JobRecord } from './jobs/record.js';
import { waitingText } from './jobs/waiting.js';
import type { DashboardId } from './paths/index.js';
import type { LaneFacts } from './peers/identity.js';
import type { PairingEvent } from './peers/pairing.js';
import type { Peer } from './peers/peer-row.js';
import type { PendingPeer } from './peers/pending.js';
import { pinPictures, pinText, type PinPicture } from './protocol/fingerprint.js';
import type { SessionEvent } from './server/sessions.js';

/** A job of a paired dashboard. Times are in milliseconds since 1970. */
export interface JobView extends JobFacts {
  /** `waiting` as a sentence; null when the job does not wait. */
  readonly waitingText: string | null;
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

export interface LaneView extends LaneFacts {
  /** Null while it does not listen on a port of its own. */
  readonly port: number | null;
  readonly fingerprint: Fingerprint | null;
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
  const { bundle, interrupted, attempt, requeued, resultKey, platform, ...rest } = record;
  // Does not compile while a field of the record is neither removed above nor among the facts to show.
  const facts: { [Key in keyof typeof rest]: Key extends keyof JobFacts ? JobFacts[Key] : never } = rest;
  return { ...facts, waitingText: facts.waiting && waitingText(facts.waiting) };
}

export function localJobView(job: LocalJob): LocalJobView {
  return { ...job, waitingText: job.waiting && waitingText(job.waiting) };
}

export function fingerprintOf(pin: string): Fingerprint {
  return { pictures: pinPictures(pin), text: pinText(pin) };
}

export function requestView({
  dashboardId,
  pin,
  label,
  friendlyName,
  address,
}: PendingPeer | Peer): RequestView {
  return { dashboardId, pin, fingerprint: fingerprintOf(pin), label, friendlyName, address };
}

export function peerView(peer: Peer, connected: boolean): PeerView {
  const { haAddon, connectBackPort, pairedAt } = peer;
  return {
    ...requestView(peer),
    // The peers file counts in seconds (Device Builder 1.26).
    ...{ haAddon, connectBackPort, pairedAt: Math.round(pairedAt * 1_000), connected },
  };
}

export function eventView(event: JobEvent | PairingEvent | SessionEvent): ReceiverEvent {
  if (event.type === 'output') return { type: event.type, jobId: event.job.id, line: event.line };
  if ('job' in event) return { type: event.type, job: jobView(event.job) };
  if (event.type === 'requested') return { type: event.type, request: requestView(event.request) };
  if (event.type === 'approved') return { type: event.type, peer: peerView(event.peer, false) };
  return event;
}
