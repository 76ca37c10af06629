/**
 * What the rest of the server may ask of its jobs.
 *
 * States are told in order, each once, and a terminal one only when nothing of the job runs and its slot is free. A job
 * that was running when its server ended is told as `queued` once more. Whoever asks for a job again, by our id or by
 * its peer's, gets the state of that moment.
 */
import type { StoredArtifacts } from '../artifacts/store.js';
import type { StagedBundle } from '../bundles/store.js';
import type { DashboardId, RemoteKey } from '../paths/index.js';
import type { JobRecord, JobRequest } from './record.js';
import type { LocalJob, QueueStatus } from './local-work.js';
import type { Slot } from './queue.js';

export type JobEvent =
  /** The job has entered `job.state`; for a terminal state once, after its slot is free and nothing of it runs. */
  | { readonly type: 'state'; readonly job: JobRecord }
  /** It begins to wait for something other than its turn, or waits no more. Not told when its state changes, too. */
  | { readonly type: 'waiting'; readonly job: JobRecord }
  /** Phase or percentage has changed. */
  | { readonly type: 'progress'; readonly job: JobRecord }
  /** One line with its terminator, as the build printed it. Never after the terminal state. */
  | { readonly type: 'output'; readonly job: JobRecord; readonly line: string }
  /** Its result was sent to the end. */
  | { readonly type: 'fetched'; readonly job: JobRecord }
  /** After every change of state. */
  | { readonly type: 'queue'; readonly status: QueueStatus };

export interface JobService {
  /**
   * Takes a job while its bundle is still being unpacked. `acknowledge` is called once, when the job's record survives
   * a crash (or the store has refused it: the job is then built, and lost with the process), and before anything is
   * told of it. When `intake` resolves, the job queues, and every older job of the same peer, device and target is
   * cancelled; when it rejects, the job fails. `intake` must settle: `close()` waits for it. A bundle that is not used
   * is discarded. Throws `STATE` after `close()`.
   */
  submit(request: JobRequest, intake: Promise<StagedBundle>, acknowledge?: () => void): JobRecord;
  /** Asks a job to end. False when there is none, or it has ended. Its terminal event is the confirmation. */
  cancel(id: string): boolean;
  cancelByPeer(dashboardId: DashboardId, peerJobId: string): boolean;
  /** Cancels all jobs of one peer, for instance when it is revoked. Resolves when they have ended. */
  cancelAllOf(dashboardId: DashboardId): Promise<void>;
  /** A peer's session has begun, or has ended. The jobs of one that stays away are cancelled after a grace time. */
  notePeer(dashboardId: DashboardId, connected: boolean): void;
  /** The newest job that a peer knows by this id; looks past those that a stop or crash of this server ended. */
  find(dashboardId: DashboardId, peerJobId: string): JobRecord | undefined;
  /** Oldest first. */
  list(): readonly JobRecord[];
  get(id: string): JobRecord | undefined;
  /** Whether a job of the device waits or runs. Takes no longer with the jobs of other peers, as the list does. */
  isBusy(key: RemoteKey): boolean;
  /** The ended jobs that have a packed result, oldest first. Cheaper than `list`, which also looks at the queue. */
  results(): readonly JobRecord[];
  /** What the packed results of each peer take, in bytes. Far cheaper than a walk through the list. */
  resultBytes(): ReadonlyMap<DashboardId, number>;
  queueStatus(): QueueStatus;
  /**
   * Waits for a slot for the host's own build, which takes its turn like those of the peers. The caller must release
   * it, once nothing of the build runs any more, and takes it before any lease: a peer's job that has a slot may be
   * waiting for that lease. Rejects with the signal's reason, `RESOURCE` when the disk is nearly full, `CANCELLED`
   * when the server stops meanwhile; `STATE` after `close()`.
   */
  enqueueLocal(configuration: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<Slot>;
  /** The host's own builds that wait for a slot or have one, oldest first. */
  local(): readonly LocalJob[];
  /** Returns the function that unsubscribes. A listener that throws is logged and harms nobody. */
  subscribe(listener: (event: JobEvent) => void): () => void;
  /** Throws `NOT_FOUND` for an unknown job, `STATE` for one without artifacts. */
  openArtifacts(id: string): Promise<StoredArtifacts>;
  /** What the job has printed so far, up to 8 MiB. Throws `NOT_FOUND`. */
  readLog(id: string): Promise<string>;
  /** Forgets an ended job, its log and its artifacts. False when there is none, or it has not ended. */
  remove(id: string): Promise<boolean>;
  /**
   * Stops all jobs and resolves when nothing of them runs. Those that wait, and those that ran for the first time, go on
   * when jobs are created on the same store again.
   */
  suspend(): Promise<void>;
  /** Suspends, then gives up the store. */
  close(): Promise<void>;
}
