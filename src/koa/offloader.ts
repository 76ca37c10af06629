/**
 * The door of `koa-esphome-receiver/offloader`: the client with a way to reach a receiver over the network. It stands
 * here and not in `offloader/`, because that folder knows no socket library.
 */

export { dial, type DialOptions, type Where } from './ws-transport.js';
export { createOffloader, type Offloader, type OffloaderOptions } from '../client/client.js';
export { loadOffloaderIdentity, type OffloaderIdentity } from '../client/client.js';
export { pinOf, pinPictures, pinText, type PinPicture } from '../protocol/fingerprint.js';
export type { ReceiverInfo } from '../client/session.js';
export type { OffloaderSession, ServerQueueStatus } from '../client/session.js';
export type { AnnouncedBundle, BuildRequest, BuildResult, Bundle } from '../client/builds.js';
export type { Artifacts, SavedArtifacts } from '../client/downloads.js';
export { makeBundle, type BundleOptions, type MadeBundle } from '../client/bundle.js';
export { unpackArtifacts, type UnpackedArtifacts } from '../client/unpack.js';
export { isReceiverError, ReceiverError, type ErrorCode } from '../errors.js';
export type { StorageJson } from '../esphome/storage-json.js';
export type { JobStatus } from '../protocol/constants.js';
export type { Transport, TransportEvents } from '../protocol/transport.js';
export { memoryTransportPair, type MemoryTransport } from '../protocol/transport.js';
export type { Log } from '../log.js';
export type { DashboardId, FileName } from '../paths/index.js';
export type { Clock } from '../async/clock.js';

/**
 * The door of `koa-esphome-receiver/offloader`: a client for build servers of the peer link, ours and Device
 * Builder's. It knows no sockets; `connect` brings the transport.
 */
