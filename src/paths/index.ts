/**
 * The entry point `koa-esphome-receiver/paths`: only the resolver. It imports no other part of the library, so a test
 * or a script loads nothing but string functions.
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
