/**
 * The door of `koa-esphome-receiver/paths`: the resolver alone, for a host that needs nothing else. It imports
 * no other part of the library, so that a test or a script pays for nothing but strings.
 */
export {
  deviceFromFile,
  dashboardId,
  fileName,
  nameFault,
  nodeName,
  maxNameBytes,
  type DashboardId,
  type DeviceSegment,
  type FileName,
} from './segments.js';
export { formatConfiguration, type Configuration, type RemoteKey } from './configuration.js';
export { createPaths, explicitDataDir, type Paths, type PathsOptions } from './resolver.js';
export type { Layout } from './resolver.js';
