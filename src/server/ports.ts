/**
 * What the link needs of the parts below it, and nothing more, so that a test can stand in for each of them and
 * no frame of the wire leaks into a job.
 */
import type { BundleIntake } from '../bundles/intake.js';
import type { JobService } from '../jobs/job-service.js';
import type { DashboardId, FileName, RemoteKey } from '../paths/index.js';
import type { AckReason } from '../protocol/constants.js';

export type SessionJobs = Pick<
  JobService,
  'submit' | 'cancel' | 'cancelByPeer' | 'find' | 'queueStatus' | 'subscribe' | 'openArtifacts'
>;

/** Begins to take a bundle in. */
export type OpenIntake = (configurationFilename: FileName) => BundleIntake;

/** Whether a device's directory really lies below the builds directory, links resolved. */
export type IsPlaceSafe = (key: RemoteKey) => Promise<boolean>;

/** Why an upload of as many bytes is refused before its first one; null when there is room. */
export type NoRoomFor = (
  dashboardId: DashboardId,
  bytes: number,
) => { readonly reason: AckReason; readonly detail: string } | null;

/**
 * Removes what was built for the peer, or for all where the host allows that. Null when jobs are under way that it would
 * take the ground from.
 */
export type ResetBuilds = (dashboardId: DashboardId) => Promise<void> | null;
