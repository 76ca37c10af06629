/**
 * The main entry point (short because it only re-exports), with everything that a host needs. The others are `./paths`, the
 * path functions alone, `./offloader`, the client, and `./testing`, the stand-in compiler.
 */
export { createReceiver, type Receiver } from './koa/plugin.js';
export type { AnnounceOptions, ReceiverOptions } from './koa/receiver-options.js';
export type { Announcement } from './koa/announcement.js';
export type { Publisher } from './koa/announce.js';
export type { ArchivePaths, HostArtifacts, HostFile, HostPaths } from './koa/host-paths.js';
export type { Authorize } from './koa/authorize.js';
export type { StateView } from './koa/state.js';
export type { Jobs, Pairing, Peers } from './receiver-api.js';
export type { Usage } from './disk/usage.js';
export type { Environment } from './esphome/environment.js';
export type { StorageJson } from './esphome/storage-json.js';
export type { ArtifactFacts } from './artifacts/pack.js';
export type { Progress } from './esphome/progress.js';
export type { QueueStatus } from './jobs/local-work.js';
export type { FailureReason, JobState } from './jobs/record.js';
export type { Slot } from './jobs/queue.js';
export { waitingText, type WaitReason } from './jobs/waiting.js';
export type { Log } from './log.js';
export type { BundleLimits, ConnectionLimits, RetentionLimits } from './options/core-options.js';
export { pinPictures, pinText, type PinPicture } from './protocol/fingerprint.js';
export type { SweepReport } from './retention/sweep.js';
export type { ResetTarget, Retention } from './retention/service.js';
export type { UsageReport } from './retention/usage.js';
export type { Fingerprint, JobView, LocalJobView, PeerView, ReceiverEvent, RequestView } from './views.js';
export { errorCodes, isReceiverError, ReceiverError, TraversalError, type ErrorCode } from './errors.js';
export * from './paths/index.js';
