/**
 * The path functions of a dashboard, which calls these instead of joining paths: they are right for its own
 * configurations and for those of peers. A missing file is an error that names the kind of file, because a silent reader
 * shows "0 bytes" for a build that is elsewhere. A peer's build is code and can plant links: if `config` linked to the
 * host's own YAML files, the host would delete those, so a path that leads out of the peer's subtree is refused.
 */
import { readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

import {
  withoutPlaces,
  type BuildFile,
  assertOwn,
  findBuild,
  findInBuild,
  missing,
  readSidecar,
} from '../artifacts/build-location.js';
import { findFiles, findFirmware } from '../artifacts/firmware.js';
import { assertInside } from '../disk/contained.js';
import { readRegular } from '../disk/open-regular.js';
import { removeTree } from '../disk/remove.js';
import { measure, type Usage } from '../disk/usage.js';
import { isReceiverError, ReceiverError, systemCode } from '../errors.js';
import { parseJsonObject } from '../disk/json-file.js';
import type { StorageJson } from '../esphome/storage-json.js';
import type { Configuration, Paths, RemoteKey } from '../paths/index.js';
import type { ReceiverCore } from '../receiver-api.js';

/** A downloadable file of a build. */
export interface HostFile {
  /** The base name. */
  readonly name: string;
  /** Absolute, with links resolved. */
  readonly path: string;
  readonly bytes: number;
}

export interface HostArtifacts {
  readonly storage: StorageJson;
  /** The file at `firmware_bin_path`, or its substitute for a toolchain that writes none. */
  readonly firmware: HostFile;
  /** The files that a peer would get too, the firmware first. Names are unique. */
  readonly files: readonly HostFile[];
}

/** The paths that belong to a configuration, whether or not they exist. */
export interface ArchivePaths {
  readonly config: string;
  readonly storage: string;
  readonly validated: readonly string[];
  /** Null without a sidecar, which names the build. */
  readonly idedata: string | null;
  readonly build: string | null;
}

/**
 * Each function takes a local or remote configuration string and throws `TRAVERSAL` if it is not a valid one. Functions
 * that read throw `TRAVERSAL` for a peer's path that leads out of its subtree, and `STORAGE` for an unreadable file.
 */
export interface HostPaths extends Pick<
  Paths,
  'parseConfiguration' | 'resolveDataDir' | 'resolveConfigPath' | 'resolveStoragePath' | 'resolveIdedataPath'
> {
  /** The sidecar. */
  loadStorage(configuration: string): Promise<StorageJson>;
  /** The firmware and the files beside it. */
  loadBuildArtifacts(configuration: string): Promise<HostArtifacts>;
  /** The size of the build directory. Throws `STORAGE` when there is no sidecar, or no build. */
  buildSize(configuration: string): Promise<Usage>;
  /** The hash of the configuration that was built, as ESPHome prints it: `0x1a2b3c4d`. */
  configHash(configuration: string): Promise<string>;
  /**
   * Removes the build, if there is one; configuration and sidecar stay. A peer's build is removed under its lock. Does not
   * call `esphome clean`, which empties shared caches. Throws `TRAVERSAL` for a build directory outside of the one where
   * ESPHome would put it, `LOCK_TIMEOUT` while a build runs there.
   */
  wipeBuild(configuration: string): Promise<void>;
  /** The paths to move or remove when the device is archived or deleted. Throws `STORAGE` for a damaged sidecar. */
  archivePaths(configuration: string): Promise<ArchivePaths>;
  /** The configurations of all stored builds of peers, sorted, including those whose jobs were removed. */
  listRemote(): Promise<readonly Configuration[]>;
  /**
   * Removes all data of one device of a peer, if there is any, once no build of it runs. A link in the device's place is
   * removed itself. Throws `STATE` for a local configuration, `TRAVERSAL` when the directory of the peer is a link,
   * `LOCK_TIMEOUT`, and `CANCELLED` when the receiver is closed meanwhile.
   */
  removeRemote(configuration: string): Promise<void>;
}

const maxBuildInfoBytes = 64 * 1024;

export function createHostPaths(core: Pick<ReceiverCore, 'paths' | 'clean' | 'removeDevice'>): HostPaths {
  const { paths } = core;

  function idedataOf(configuration: string, { name, toolchain }: StorageJson): string | null {
    return name === null ? null : paths.resolveIdedataPath(configuration, { name, toolchain });
  }

  async function loadBuildArtifacts(configuration: string): Promise<HostArtifacts> {
    const place = await findBuild(paths, configuration);
    const found = await findFirmware(place);
    const firmware = hostFile(found.file);
    const others = (await findFiles(place, found)).map(hostFile);
    const files = [firmware, ...others.filter(({ name }) => name !== firmware.name)];
    return { storage: place.storage, firmware, files };
  }

  async function buildSize(configuration: string): Promise<Usage> {
    const usage = await measure((await findBuild(paths, configuration)).path);
    if (usage.files === 0) throw missing('the build directory is empty');
    return usage;
  }

  async function configHash(configuration: string): Promise<string> {
    const file = await findInBuild(await findBuild(paths, configuration), 'build_info.json');
    if (file === null) throw missing('the build information (build_info.json) is missing');
    const hash = parseJsonObject(await readRegular(file.path, maxBuildInfoBytes))?.get('config_hash');
    if (typeof hash === 'number') return `0x${(hash >>> 0).toString(16).padStart(8, '0')}`;
    const facts = { configuration, fault: 'damaged' };
    throw new ReceiverError('STORAGE', 'the build information (build_info.json) is damaged', facts);
  }

  async function wipeBuild(configuration: string): Promise<void> {
    if (paths.parseConfiguration(configuration) !== null) return core.clean(configuration);
    const storage = await unlessMissing(readSidecar(paths, configuration));
    if (storage === null) return;
    const { buildPath } = storage;
    if (buildPath !== null) {
      // Any name gives the right parent; the sidecar's own might not be a valid one.
      const root = dirname(paths.resolveBuildPath(configuration, { name: 'any' }));
      await assertInside(root, buildPath, 'the build directory');
      await removeTree(buildPath);
    }
    const idedata = idedataOf(configuration, storage);
    if (idedata !== null) await removeTree(idedata);
  }

  async function archivePaths(configuration: string): Promise<ArchivePaths> {
    const storage = await unlessMissing(readSidecar(paths, configuration));
    const found = {
      config: paths.resolveConfigPath(configuration),
      storage: paths.resolveStoragePath(configuration),
      validated: (['json', 'yaml'] as const).map((form) => paths.resolveValidatedPath(configuration, form)),
      idedata: storage && idedataOf(configuration, storage),
      build: storage && storage.buildPath,
    };
    for (const place of [found.config, found.storage, ...found.validated, found.idedata, found.build]) {
      if (place !== null) await assertOwn(paths, configuration, place, 'a file of the build');
    }
    return found;
  }

  return Object.freeze({
    parseConfiguration: paths.parseConfiguration,
    resolveDataDir: paths.resolveDataDir,
    resolveConfigPath: paths.resolveConfigPath,
    resolveStoragePath: paths.resolveStoragePath,
    resolveIdedataPath: paths.resolveIdedataPath,
    loadStorage: (configuration) => withoutPlaces(() => readSidecar(paths, configuration)),
    loadBuildArtifacts: (configuration) => withoutPlaces(() => loadBuildArtifacts(configuration)),
    buildSize: (configuration) => withoutPlaces(() => buildSize(configuration)),
    configHash: (configuration) => withoutPlaces(() => configHash(configuration)),
    wipeBuild: (configuration) => withoutPlaces(() => wipeBuild(configuration)),
    archivePaths: (configuration) => withoutPlaces(() => archivePaths(configuration)),
    listRemote: () => listRemote(paths),
    removeRemote: (configuration) => withoutPlaces(() => core.removeDevice(configuration)),
  } satisfies HostPaths);
}

function hostFile({ name, path, size }: BuildFile): HostFile {
  return { name: basename(name), path, bytes: size };
}

/** Null when the sidecar is missing; every other fault is an error. */
async function unlessMissing(reading: Promise<StorageJson>): Promise<StorageJson | null> {
  try {
    return await reading;
  } catch (error) {
    if (isReceiverError(error, 'STORAGE') && error.facts['fault'] === 'missing') return null;
    throw error;
  }
}

async function listRemote(paths: Paths): Promise<readonly Configuration[]> {
  const found: Configuration[] = [];
  for (const peer of await namesIn(paths.buildsDir, 'isDirectory')) {
    for (const name of await namesIn(join(paths.buildsDir, peer), 'isDirectory')) {
      const key = keyOf(paths, peer, name);
      if (key !== null) found.push(...(await configurationsOf(paths, key)));
    }
  }
  return found;
}

function keyOf(paths: Paths, peer: string, name: string): RemoteKey | null {
  return orNull(() => paths.parseConfiguration(`.esphome/.remote_builds/${peer}/${name}/any.yaml`));
}

async function configurationsOf(paths: Paths, key: RemoteKey): Promise<Configuration[]> {
  if (!(await namesIn(paths.layout.subtree(key), 'isDirectory')).includes('config')) return [];
  const files = await namesIn(paths.layout.configTree(key), 'isFile');
  return files
    .filter((file) => orNull(() => paths.deviceFromFile(file)) === key.device)
    .map((file) => paths.formatConfiguration(key, file));
}

/** Names of real directories or files, without links; empty for a missing directory. */
async function namesIn(directory: string, kind: 'isFile' | 'isDirectory'): Promise<string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    return entries
      .filter((entry) => entry[kind]())
      .map(({ name }) => name)
      .toSorted();
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [];
    throw error;
  }
}

/** Null for names that the parser refuses: those are not builds. */
function orNull<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (isReceiverError(error, 'TRAVERSAL')) return null;
    throw error;
  }
}
