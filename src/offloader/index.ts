/**
 * The door of `koa-esphome-receiver/offloader`: a client for build servers of the peer link, ours and Device
 * Builder's. It knows no sockets; `connect` brings the transport.
 */
export { createOffloader, type Offloader, type OffloaderOptions } from './offloader.js';
export { loadOffloaderIdentity, type OffloaderIdentity } from './identity.js';
export { pinOf, pinPictures, pinText, type PinPicture } from '../peers/pin.js';
export type { ReceiverInfo } from './receiver-info.js';
export type { OffloaderSession, QueueStatus } from './session.js';
export type { AnnouncedBundle, BuildRequest, BuildResult, Bundle } from './build-request.js';
export type { Artifacts, SavedArtifacts } from './downloads.js';
export { makeBundle, type BundleOptions, type MadeBundle } from './bundle.js';
export { unpackArtifacts, type UnpackedArtifacts } from './artifacts.js';
export { isReceiverError, ReceiverError, type ErrorCode } from '../errors.js';
export type { StorageJson } from '../esphome/storage-json.js';
export type { JobStatus } from '../link/names.js';
export type { Transport, TransportEvents } from '../link/transport.js';
export { memoryTransportPair, type MemoryTransport } from '../link/memory-transport.js';
export type { Log } from '../log.js';
export type { DashboardId, FileName } from '../paths/index.js';
export type { Clock } from '../peers/clock.js';
