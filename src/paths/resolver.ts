/**
 * Resolves the paths of a configuration's files, for the receiver's writers and readers and for the host's routes. It
 * works on strings only and never touches the disk.
 *
 * A local configuration gets ESPHome's own paths, unchanged; a remote one gets paths below its own subtree. Two sides
 * that each joined paths themselves once built firmware in one directory and looked for it in another.
 */
import nativePath, { type posix } from 'node:path';

import { ReceiverError, TraversalError } from '../errors.js';
import {
  formatConfiguration,
  readConfiguration,
  type Configuration,
  type RemoteKey,
} from './configuration.js';
import {
  buildsDirName,
  esphomeDirName,
  dashboardId,
  deviceFromFile,
  nodeName,
  type DashboardId,
  type DeviceSegment,
} from './segments.js';

export interface PathsOptions {
  /** The directory of the host's YAML files. A relative one is resolved once, against the working directory. */
  readonly configDir: string;
  /** The directory of remote builds. Default: `<configDir>/.esphome/.remote_builds`. */
  readonly buildsDir?: string | undefined;
  /**
   * The data directory of all local configurations, see {@link explicitDataDir}. Default: `.esphome` beside each YAML,
   * as in ESPHome.
   */
  readonly dataDir?: string | undefined;
  /** `ESPHOME_BUILD_PATH` of local builds, relative to the data directory unless absolute. Default: `build`. */
  readonly buildPath?: string | undefined;
  /** The path rules. Default: this platform's. */
  readonly path?: PlatformPath | undefined;
}

export interface Paths {
  readonly configDir: string;
  readonly buildsDir: string;
  readonly layout: Layout;
  /** A remote build's key, `null` for a local configuration. Throws `TRAVERSAL` for anything traversal-shaped. */
  parseConfiguration(text: string): RemoteKey | null;
  /** The configuration string of a remote build. Throws `TRAVERSAL`. */
  formatConfiguration(key: RemoteKey, file: string): Configuration;
  /** Checks a peer's id. Throws `TRAVERSAL`. */
  dashboardId(text: unknown): DashboardId;
  /** The device segment of a YAML file name. Throws `TRAVERSAL`. */
  deviceFromFile(fileName: string): DeviceSegment;
  /** `ESPHOME_DATA_DIR` of the configuration. Throws `TRAVERSAL`, as all below. */
  resolveDataDir(configuration: string): string;
  /** The YAML file itself. */
  resolveConfigPath(configuration: string): string;
  /** The StorageJSON sidecar, keyed on the YAML's base name as ESPHome does. */
  resolveStoragePath(configuration: string): string;
  /** The validated-configuration cache: `json` since ESPHome 2026.8, `yaml` in 2026.6 and 2026.7. */
  resolveValidatedPath(configuration: string, format?: 'json' | 'yaml'): string;
  /** The idedata cache; `name` and `toolchain` as in the sidecar. */
  resolveIdedataPath(
    configuration: string,
    build: { readonly name: string; readonly toolchain?: string | null | undefined },
  ): string;
  /** Where ESPHome builds the node `name`, unless the YAML sets another path. */
  resolveBuildPath(configuration: string, build: { readonly name: string }): string;
}

/** Throws `OPTIONS` for directories that would overlap. */
export function createPaths(options: PathsOptions): Paths {
  const path = options.path ?? nativePath;
  const configDir = path.resolve(options.configDir);
  const explicitData = options.dataDir === undefined ? undefined : path.resolve(options.dataDir);
  const defaultData = explicitData ?? path.join(configDir, esphomeDirName);
  const buildsDir =
    options.buildsDir === undefined
      ? path.join(configDir, esphomeDirName, buildsDirName)
      : path.resolve(options.buildsDir);
  refuseOverlap(path, configDir, buildsDir, explicitData);
  const layout = createLayout(buildsDir, path);
  const { sep } = path;

  /** The data directory of a configuration, and the base name that ESPHome keys its files on. */
  function locate(configuration: string): { data: string; base: string; isRemote: boolean } {
    const remote = readConfiguration(configuration);
    if (remote !== null) return { data: layout.subtree(remote), base: remote.file, isRemote: true };
    const slash = configuration.lastIndexOf('/');
    if (slash < 0) return { data: defaultData, base: configuration, isRemote: false };
    const folders = configuration.slice(0, slash).split('/');
    const data = explicitData ?? path.join(configDir, ...folders, esphomeDirName);
    return { data, base: configuration.slice(slash + 1), isRemote: false };
  }

  function storageFile(configuration: string, suffix: string): string {
    const { data, base } = locate(configuration);
    return `${data}${sep}storage${sep}${base}${suffix}`;
  }

  return Object.freeze({
    configDir,
    buildsDir,
    layout,
    parseConfiguration(text: string) {
      const remote = readConfiguration(text);
      return remote && Object.freeze({ dashboardId: remote.dashboardId, device: remote.device });
    },
    formatConfiguration,
    dashboardId,
    deviceFromFile,
    resolveDataDir: (configuration: string) => locate(configuration).data,
    resolveConfigPath(configuration: string) {
      const remote = readConfiguration(configuration);
      if (remote === null) return path.join(configDir, ...configuration.split('/'));
      return [layout.subtree(remote), ...remote.folders, remote.file].join(sep);
    },
    resolveStoragePath: (configuration: string) => storageFile(configuration, '.json'),
    resolveValidatedPath: (configuration: string, format: 'json' | 'yaml' = 'json') =>
      storageFile(configuration, `.validated.${format}`),
    resolveIdedataPath(configuration, { name, toolchain }) {
      const suffix = toolchain === 'arduino' ? '.arduino.json' : '.json';
      return `${locate(configuration).data}${sep}idedata${sep}${nodeName(name)}${suffix}`;
    },
    resolveBuildPath(configuration, { name }) {
      const { data, isRemote } = locate(configuration);
      const root = isRemote ? 'build' : (options.buildPath ?? 'build');
      return path.join(path.isAbsolute(root) ? root : path.join(data, root), nodeName(name));
    },
  } satisfies Paths);
}

/** Peers choose the names of directories in `buildsDir`, so the host's own directories must not be there. */
function refuseOverlap(
  path: PlatformPath,
  configDir: string,
  buildsDir: string,
  dataDir: string | undefined,
): void {
  const holds = (outer: string, inner: string): boolean => {
    const way = path.relative(outer, inner);
    return way === '' || (way.split(path.sep)[0] !== '..' && !path.isAbsolute(way));
  };
  const below = path.relative(configDir, buildsDir).split(path.sep);
  const isHidden = below.some((name) => name.startsWith('.') && name !== '.' && name !== '..');
  const isOwn = path.join(configDir, esphomeDirName) === buildsDir;
  const refuse = (message: string): never => {
    throw new ReceiverError('OPTIONS', message, { configDir, buildsDir, dataDir });
  };
  if (holds(buildsDir, configDir) || isOwn)
    refuse('buildsDir must not contain configurations or data of the host');
  if (holds(configDir, buildsDir) && !isHidden)
    refuse('buildsDir must have a hidden directory in its path if it is below configDir');
  if (dataDir !== undefined && holds(buildsDir, dataDir)) refuse('dataDir must not be inside buildsDir');
}

/**
 * The environment's data directory for all configurations of the host, by ESPHome's rules (2026.10): `/data` when
 * `ESPHOME_IS_HA_ADDON` is true, else `ESPHOME_DATA_DIR`; undefined without both, which means `.esphome` beside each
 * YAML. Throws {@link TraversalError} for a value with a NUL.
 */
export function explicitDataDir(env: Readonly<Record<string, string | undefined>>): string | undefined {
  if (!falseWords.has((env['ESPHOME_IS_HA_ADDON'] ?? '').toLowerCase())) return '/data';
  const explicit = env['ESPHOME_DATA_DIR'];
  if (explicit === undefined) return undefined;
  if (explicit.includes('\0')) throw new TraversalError('ESPHOME_DATA_DIR', explicit, 'it holds a NUL');
  return nativePath.resolve(explicit);
}

/** For ESPHome any other word is true. */
const falseWords = new Set(['', '0', 'false', 'no', 'off', 'disable']);

/** The path rules of a platform. Node's older and newer types have no common name for it. */
export type PlatformPath = typeof posix;

/**
 * The receiver's directories below the builds directory. A device's subtree is its `ESPHOME_DATA_DIR` and contains the
 * uploaded configuration as `config/`, so that replacing the configuration never touches ESPHome's caches beside it.
 * Everything else is below `.receiver`, which cannot be a peer's directory because an id cannot begin with a dot.
 */
export interface Layout {
  readonly buildsDir: string;
  readonly receiverDir: string;
  readonly locksDir: string;
  readonly uploadsDir: string;
  readonly jobsDir: string;
  /** Records of each device's last use and size. */
  readonly devicesDir: string;
  /** Records of the key that owns each peer id's data. */
  readonly ownersDir: string;
  readonly artifactsDir: string;
  readonly trashDir: string;
  readonly venvsDir: string;
  readonly toolchainsDir: string;
  /** The receiver's own directories, created at startup. */
  readonly ownDirectories: readonly string[];
  /** The data directory of one device of one peer. */
  subtree(key: RemoteKey): string;
  /** The uploaded configuration of that device. */
  configTree(key: RemoteKey): string;
}

/** `buildsDir` must be absolute. */
function createLayout(buildsDir: string, path: PlatformPath): Layout {
  const receiverDir = path.join(buildsDir, '.receiver');
  const subtree = (key: RemoteKey): string => [buildsDir, key.dashboardId, key.device].join(path.sep);
  const own = {
    locksDir: path.join(receiverDir, 'locks'),
    uploadsDir: path.join(receiverDir, 'uploads'),
    jobsDir: path.join(receiverDir, 'jobs'),
    devicesDir: path.join(receiverDir, 'devices'),
    ownersDir: path.join(receiverDir, 'owners'),
    artifactsDir: path.join(receiverDir, 'artifacts'),
    trashDir: path.join(receiverDir, 'trash'),
    venvsDir: path.join(receiverDir, 'venvs'),
    toolchainsDir: path.join(receiverDir, 'toolchains'),
  };
  return Object.freeze({
    ...own,
    buildsDir,
    receiverDir,
    ownDirectories: Object.values(own),
    subtree,
    configTree: (key: RemoteKey) => subtree(key) + path.sep + 'config',
  });
}

/**
 * The key of a configuration that must be a peer's, for operations that must never apply to the host's own builds.
 * Throws `STATE` for a local configuration, `TRAVERSAL` for an invalid one.
 */
export function remoteKeyOf(paths: Pick<Paths, 'parseConfiguration'>, configuration: string): RemoteKey {
  const key = paths.parseConfiguration(configuration);
  if (key !== null) return key;
  throw new ReceiverError('STATE', "this is the host's own configuration, not a peer's", { configuration });
}
