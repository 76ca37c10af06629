/**
 * The entry point `koa-esphome-receiver/offloader` (short because it only re-exports): a client for build servers of the
 * peer link, ours and Device Builder's. It is in this folder because `dial` needs a socket library, which `client/` does
 * not know.
 */
export { dial, type ConnectFailure, type DialOptions, type Where } from './dial.js';
export { createOffloader, loadOffloaderIdentity } from '../client/client.js';
export type { Offloader, OffloaderIdentity, OffloaderOptions } from '../client/client.js';
export { pinOf, pinPictures, pinText, type PinPicture } from '../protocol/fingerprint.js';
export type { OffloaderSession, ReceiverInfo, ServerQueueStatus } from '../client/session.js';
export type { AnnouncedBundle, BuildRequest, BuildResult, Bundle } from '../client/builds.js';
export type { Artifacts, SavedArtifacts } from '../client/downloads.js';
export { makeBundle, type BundleOptions, type MadeBundle } from '../client/bundle.js';
export { unpackArtifacts, type UnpackedArtifacts } from '../client/unpack.js';
export { isReceiverError, ReceiverError, type ErrorCode } from '../errors.js';
export { plainText, readProgress, startOfProgress } from '../esphome/progress.js';
export type { CompilePhase, Progress } from '../esphome/progress.js';
export type { StorageJson } from '../esphome/storage-json.js';
export type { JobStatus } from '../protocol/constants.js';
export { memoryTransportPair } from '../protocol/transport.js';
export type { MemoryTransport, Transport, TransportEvents } from '../protocol/transport.js';
export type { Log } from '../log.js';
export type { DashboardId, FileName } from '../paths/index.js';
export type { Clock } from '../async/clock.js';
