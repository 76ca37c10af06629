/**
 * The door. Everything that a host needs is here; `./paths` is the resolver alone, `./offloader` the client and
 * `./testing` the stand-in compiler.
 */
export { createReceiver, type Receiver, type ReceiverOptions } from './mount/create.js';
export type { Announcement } from './mount/announcement.js';
export type { AnnounceOptions } from './mount/announce-options.js';
export type { Publisher } from './mount/announce.js';
export type { HostPaths } from './mount/host-paths.js';
export type { Authorize } from './mount/authorize.js';
export type { JobsView, Pairing, Peers, PeerView, ReceiverEvent } from './core.js';
export type { JobRecord, JobState } from './jobs/job.js';
export type { LocalJob } from './jobs/local-work.js';
export type { Slot } from './jobs/queue.js';
export { waitingText, type Waiting } from './jobs/waiting.js';
export type { Log } from './log.js';
export { pinPictures, pinText, type PinPicture } from './peers/pin.js';
export { errorCodes, isReceiverError, ReceiverError, TraversalError, type ErrorCode } from './errors.js';
export * from './paths/index.js';
