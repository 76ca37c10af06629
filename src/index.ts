/**
 * The door. Everything that a host needs is here; `./paths` is the resolver alone, `./offloader` the client and
 * `./testing` the stand-in compiler.
 */
export { createReceiver, type Receiver, type ReceiverOptions } from './mount/create.js';
export type { Announcement } from './mount/announcement.js';
export type { AnnounceOptions } from './mount/announce-options.js';
export type { Publisher } from './mount/announce.js';
export type { ArchivePaths, HostArtifacts, HostFile, HostPaths } from './mount/host-paths.js';
export type { Authorize } from './mount/authorize.js';
export type { JobsView, Pairing, Peers, PeerView, ReceiverEvent } from './core.js';
export type { BundleLimits } from './bundles/limits.js';
export type { Usage } from './disk/usage.js';
export type { Environment } from './esphome/environment.js';
export type { StorageJson } from './esphome/storage-json.js';
export type { FailureReason, JobRecord, JobState } from './jobs/job.js';
export type { LocalJob } from './jobs/local-work.js';
export type { Slot } from './jobs/queue.js';
export { waitingText, type Waiting } from './jobs/waiting.js';
export type { Log } from './log.js';
export type { ConnectionLimits } from './options.js';
export type { Peer } from './peers/peer-row.js';
export type { PendingPeer } from './peers/pending.js';
export { pinPictures, pinText, type PinPicture } from './peers/pin.js';
export type { RetentionLimits } from './retention/limits.js';
export type { Report } from './retention/report.js';
export type { ResetWish, Retention } from './retention/retention.js';
export type { UsageReport } from './retention/usage.js';
export { errorCodes, isReceiverError, ReceiverError, TraversalError, type ErrorCode } from './errors.js';
export * from './paths/index.js';
