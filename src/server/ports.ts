/**
 * What the peer server needs of the parts below it (short because it is a contract): a test can replace each of them, and
 * no frame of the wire leaks into a job.
 */
import type { Clock } from '../async/clock.js';
import type { BundleIntake } from '../bundles/intake.js';
import type { NoRoom } from '../bundles/store.js';
import type { JobService } from '../jobs/job-service.js';
import type { JobRequest } from '../jobs/record.js';
import type { Log } from '../log.js';
import type { BundleLimits } from '../options/core-options.js';
import type { DashboardId, RemoteKey } from '../paths/index.js';
import type { ReceiverChannel } from '../protocol/channel.js';
import type { Uploads } from './connection-limits.js';

export type SessionJobs = Pick<
  JobService,
  'submit' | 'cancel' | 'cancelByPeer' | 'find' | 'queueStatus' | 'subscribe' | 'openArtifacts'
>;

/** Starts to unpack a bundle. Calls `onRefused` when its peer has no more room for it. */
export type OpenIntake = (
  request: Pick<JobRequest, 'dashboardId' | 'target' | 'file'>,
  onRefused: (why: NoRoom) => void,
) => BundleIntake;

/** Why an upload of this size is refused before its first byte; null when there is room. */
export type NoRoomFor = (dashboardId: DashboardId, bytes: number) => NoRoom | null;

/** Removes the builds of the peer, or of all peers if the host allows it. Null while affected jobs are running. */
export type ResetBuilds = (dashboardId: DashboardId) => Promise<void> | null;

export interface SessionPorts {
  readonly jobs: SessionJobs;
  readonly openIntake: OpenIntake;
  readonly bundleLimits: Pick<BundleLimits, 'packedBytes'>;
  /** Whether a device's directory is inside the builds directory after links are resolved. */
  readonly isPlaceSafe: (key: RemoteKey) => Promise<boolean>;
  /** Default: there is always room. */
  readonly noRoomFor?: NoRoomFor | undefined;
  /** Default: resets are refused, and not offered to the peer. */
  readonly resetBuilds?: ResetBuilds | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

/** What one session and its transfers need. */
export interface PeerSessionDeps extends SessionPorts {
  readonly dashboardId: DashboardId;
  /** The number of the lane on which it connected. */
  readonly lane: number;
  /** The name of the peer, shown to operators with its jobs. */
  readonly peerLabel: string;
  readonly channel: ReceiverChannel;
  readonly uploads: Uploads;
  /** Stops all frames about a job. */
  readonly mute: (jobId: string) => void;
}
