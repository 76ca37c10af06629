/**
 * The contract between the jobs and the rest of the server.
 *
 * States are reported in order, each once, and a terminal one only when nothing of the job runs and its slot is free.
 * A job that was running when its server stopped is reported as `queued` again. A lookup, by our id or by the peer's,
 * returns the current state.
 */
import type { StoredArtifacts } from '../artifacts/store.js';
import type { StagedBundle } from '../bundles/store.js';
import type { DashboardId, RemoteKey } from '../paths/index.js';
import type { JobRecord, JobRequest } from './record.js';
import type { LocalJob, QueueStatus } from './local-work.js';
import type { Slot } from './queue.js';

export type JobEvent =
  /** The job entered `job.state`. */
  | { readonly type: 'state'; readonly job: JobRecord }
  /** It starts or stops waiting for something other than a slot. Not emitted when its state changes as well. */
  | { readonly type: 'waiting'; readonly job: JobRecord }
  /** Phase or percentage changed. */
  | { readonly type: 'progress'; readonly job: JobRecord }
  /** One line with its terminator, as the build printed it. Never after the terminal state. */
  | { readonly type: 'output'; readonly job: JobRecord; readonly line: string }
  /** Its result was sent completely. */
  | { readonly type: 'fetched'; readonly job: JobRecord }
  /** After every change of state. */
  | { readonly type: 'queue'; readonly status: QueueStatus };

export interface JobService {
  /**
   * Accepts a job while its bundle is still being unpacked. `acknowledge` is called once, before any event of the job,
   * when the record survives a crash (or the store has failed: the job is then built, and lost with the process). When
   * `intake` resolves, the job queues, and every older job of the same peer, device and target is cancelled; when it
   * rejects, the job fails. `intake` must settle: `close()` waits for it. An unused bundle is discarded. Throws `STATE`
   * after `close()`.
   */
  submit(request: JobRequest, intake: Promise<StagedBundle>, acknowledge?: () => void): JobRecord;
  /** Requests the end of a job. False for an unknown or ended one. Its terminal event is the confirmation. */
  cancel(id: string): boolean;
  cancelByPeer(dashboardId: DashboardId, peerJobId: string): boolean;
  /** Cancels all jobs of one peer, for instance when it is revoked. Resolves when they have ended. */
  cancelAllOf(dashboardId: DashboardId): Promise<void>;
  /** Call when a peer's session begins or ends. The jobs of an offline peer are cancelled after a grace time. */
  setPeerConnected(dashboardId: DashboardId, connected: boolean): void;
  /** The newest job with this id of the peer's; skips those that a stop or crash of this server ended. */
  find(dashboardId: DashboardId, peerJobId: string): JobRecord | undefined;
  /** Oldest first. */
  list(): readonly JobRecord[];
  get(id: string): JobRecord | undefined;
  /** Whether a job of the device waits or runs. Unlike `list`, its cost does not grow with the jobs of other peers. */
  isBusy(key: RemoteKey): boolean;
  /** The ended jobs with a packed result, oldest first. Cheaper than `list`, which also reads the queue. */
  results(): readonly JobRecord[];
  /** The size of each peer's packed results, in bytes. Far cheaper than a walk through the list. */
  resultBytes(): ReadonlyMap<DashboardId, number>;
  queueStatus(): QueueStatus;
  /**
   * Waits for a slot for the host's own build, in the same queue as the peers' jobs. The caller must release the slot
   * once nothing of the build runs, and must acquire it before any lease: a peer's job that has a slot can be waiting
   * for that lease. Rejects with the signal's reason, `RESOURCE` when the disk is nearly full, `CANCELLED` when the
   * server stops meanwhile; `STATE` after `close()`.
   */
  enqueueLocal(configuration: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<Slot>;
  /** The host's own builds that wait for a slot or hold one, oldest first. */
  local(): readonly LocalJob[];
  /** Returns the function that unsubscribes. An error thrown by a listener is only logged. */
  subscribe(listener: (event: JobEvent) => void): () => void;
  /** Throws `NOT_FOUND` for an unknown job, `STATE` for one without artifacts. */
  openArtifacts(id: string): Promise<StoredArtifacts>;
  /** The job's output so far, up to 8 MiB. Throws `NOT_FOUND`. */
  readLog(id: string): Promise<string>;
  /** Deletes an ended job, its log and its artifacts. False for an unknown job or one that has not ended. */
  remove(id: string): Promise<boolean>;
  /**
   * Stops all jobs and resolves when nothing of them runs. Those that waited, or ran for the first time, continue
   * when a service is created on the same store again.
   */
  suspend(): Promise<void>;
  /** Suspends, then closes the store. */
  close(): Promise<void>;
}
