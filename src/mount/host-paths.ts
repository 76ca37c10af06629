/**
 * The resolver hook: what a dashboard asks instead of joining paths by itself.
 *
 * Every look-up goes through the one resolver, so a host that uses these is right for its own configurations and
 * for those of peers alike. Whatever is absent is an error that says which kind of file is missing: a reader that
 * shrugs shows "0 bytes" for a build that lies somewhere else. A peer's build is code and may plant links: `config`
 * as one to the host's own YAMLs would have the host delete those, so a place that leads out of it is refused.
 */
import { lstat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

import { cleanBuildDir } from '../compile/build-dir.js';
import { assertInside } from '../disk/contained.js';
import { readRegular } from '../disk/open-regular.js';
import { removeTree } from '../disk/remove.js';
import { measure, type Usage } from '../disk/usage.js';
import { isReceiverError, ReceiverError, systemCode } from '../errors.js';
import { parseJsonObject } from '../esphome/json-object.js';
import { platformRow } from '../esphome/platforms.js';
import { loadStorage, type StorageJson } from '../esphome/storage-json.js';
import type { Configuration, Paths } from '../paths/index.js';
import type { ReceiverCore } from '../receiver.js';
import { listRemote, removeRemote } from './remote-builds.js';

export interface BuildFile {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
}

export interface BuildArtifacts {
  readonly storage: StorageJson;
  /** The file at `firmware_bin_path`. */
  readonly firmware: BuildFile;
  /** All files of the build that its platform offers, the firmware first. No name comes twice. */
  readonly files: readonly BuildFile[];
}

/** The places that belong to a configuration, whether or not something is there. */
export interface ArchivePaths {
  readonly config: string;
  readonly storage: string;
  readonly validated: readonly string[];
  /** Null when no sidecar says what the build is called. */
  readonly idedata: string | null;
  readonly build: string | null;
}

/**
 * Each takes a configuration string, local or remote, and throws `TRAVERSAL` for one that is refused. Those that
 * read also throw it for a place of a peer's that leads out of its subtree, and `STORAGE` for what cannot be read.
 */
export interface HostPaths extends Pick<
  Paths,
  'parseConfiguration' | 'resolveDataDir' | 'resolveConfigPath' | 'resolveStoragePath' | 'resolveIdedataPath'
> {
  /** The sidecar. Throws `STORAGE` when it is missing or damaged. */
  loadStorage(configuration: string): Promise<StorageJson>;
  /** The firmware and what lies with it. Throws `STORAGE` naming what is missing, `TRAVERSAL` for a planted path. */
  loadBuildArtifacts(configuration: string): Promise<BuildArtifacts>;
  /** What the build directory holds. Throws `STORAGE` when there is no sidecar, or no build. */
  buildSize(configuration: string): Promise<Usage>;
  /** The hash of the configuration that was built, as ESPHome prints it: `0x1a2b3c4d`. Throws `STORAGE`. */
  configHash(configuration: string): Promise<string>;
  /**
   * Removes what was built, under the lock when it is a peer's; configuration and sidecar stay. Never `esphome
   * clean`, which empties shared caches. Nothing there is fine. Throws `TRAVERSAL` for a build directory that is
   * not below the one where ESPHome would put it, `LOCK_TIMEOUT` while a build runs there.
   */
  wipeBuild(configuration: string): Promise<void>;
  /** What a host moves or removes when the device is archived or deleted. Throws `STORAGE` for a damaged sidecar. */
  archivePaths(configuration: string): Promise<ArchivePaths>;
  /** The configurations of all builds of peers that are here, in order. Throws system errors. */
  listRemote(): Promise<readonly Configuration[]>;
  /**
   * Removes all that is here of one device of a peer, once no build of it runs. Nothing there is fine. Throws
   * `STATE` for a local configuration, `TRAVERSAL` for a planted link, `LOCK_TIMEOUT`.
   */
  removeRemote(configuration: string): Promise<void>;
}

const maxBuildInfoBytes = 64 * 1024;

export function createHostPaths(core: Pick<ReceiverCore, 'paths' | 'underLease'>): HostPaths {
  const { paths } = core;

  /** A peer's data directory, which must lie among the builds. */
  async function subtreeOf(configuration: string): Promise<string> {
    const subtree = paths.resolveDataDir(configuration);
    await assertInside(paths.buildsDir, subtree, 'the data directory of the build');
    return subtree;
  }

  /** The place itself; a peer's must lie in its subtree. */
  async function checked(configuration: string, place: string, what: string): Promise<string> {
    if (paths.parseConfiguration(configuration) !== null) {
      await assertInside(await subtreeOf(configuration), place, what);
    }
    return place;
  }

  async function storageOf(configuration: string): Promise<StorageJson> {
    const path = paths.resolveStoragePath(configuration);
    return loadStorage(await checked(configuration, path, 'the sidecar of the build'));
  }

  async function buildPathOf(configuration: string, { buildPath }: StorageJson): Promise<string> {
    if (buildPath === null) throw missing('the build', configuration);
    return checked(configuration, buildPath, 'the build directory');
  }

  function idedataOf(configuration: string, { name, toolchain }: StorageJson): string | null {
    return name === null ? null : paths.resolveIdedataPath(configuration, { name, toolchain });
  }

  async function loadBuildArtifacts(configuration: string): Promise<BuildArtifacts> {
    const storage = await storageOf(configuration);
    const buildPath = await buildPathOf(configuration, storage);
    const firmware = await firmwareOf(buildPath, storage);
    if (firmware === null) throw missing('the firmware', configuration);
    const files = new Map([[firmware.name, firmware]]);
    for (const candidate of offered(storage, buildPath, firmware.path)) {
      const file = await fileBelow(buildPath, candidate);
      if (file !== null && !files.has(file.name)) files.set(file.name, file);
    }
    return { storage, firmware, files: [...files.values()] };
  }

  async function buildSize(configuration: string): Promise<Usage> {
    const usage = await measure(await buildPathOf(configuration, await storageOf(configuration)));
    if (usage.files === 0) throw missing('the build directory', configuration);
    return usage;
  }

  async function configHash(configuration: string): Promise<string> {
    const buildPath = await buildPathOf(configuration, await storageOf(configuration));
    const file = await fileBelow(buildPath, join(buildPath, 'build_info.json'));
    if (file === null) throw missing('the build information (build_info.json)', configuration);
    const hash = parseJsonObject(await readRegular(file.path, maxBuildInfoBytes))?.get('config_hash');
    if (typeof hash === 'number') return `0x${(hash >>> 0).toString(16).padStart(8, '0')}`;
    const facts = { configuration, fault: 'damaged' };
    throw new ReceiverError('STORAGE', 'the build information (build_info.json) is damaged', facts);
  }

  async function wipeBuild(configuration: string): Promise<void> {
    const key = paths.parseConfiguration(configuration);
    if (key === null) return wipeLocal(configuration);
    await core.underLease(key, 'the build is being removed', async () => {
      await subtreeOf(configuration);
      await cleanBuildDir(paths, configuration);
    });
  }

  async function wipeLocal(configuration: string): Promise<void> {
    const storage = await ifAny(storageOf(configuration));
    if (storage === null) return;
    const { buildPath } = storage;
    if (buildPath !== null) {
      const root = dirname(paths.resolveBuildPath(configuration, { name: basename(buildPath) }));
      await assertInside(root, buildPath, 'the build directory');
      await removeTree(buildPath);
    }
    const idedata = idedataOf(configuration, storage);
    if (idedata !== null) await removeTree(idedata);
  }

  async function archivePaths(configuration: string): Promise<ArchivePaths> {
    const storage = await ifAny(storageOf(configuration));
    const found = {
      config: paths.resolveConfigPath(configuration),
      storage: paths.resolveStoragePath(configuration),
      validated: (['json', 'yaml'] as const).map((form) => paths.resolveValidatedPath(configuration, form)),
      idedata: storage && idedataOf(configuration, storage),
      build: storage && storage.buildPath,
    };
    for (const place of [found.config, found.storage, ...found.validated, found.idedata, found.build]) {
      if (place !== null) await checked(configuration, place, 'a file of the build');
    }
    return found;
  }

  return Object.freeze({
    parseConfiguration: paths.parseConfiguration,
    resolveDataDir: paths.resolveDataDir,
    resolveConfigPath: paths.resolveConfigPath,
    resolveStoragePath: paths.resolveStoragePath,
    resolveIdedataPath: paths.resolveIdedataPath,
    loadStorage: withoutPlaces(storageOf),
    loadBuildArtifacts: withoutPlaces(loadBuildArtifacts),
    buildSize: withoutPlaces(buildSize),
    configHash: withoutPlaces(configHash),
    wipeBuild: withoutPlaces(wipeBuild),
    archivePaths: withoutPlaces(archivePaths),
    listRemote: () => listRemote(paths),
    removeRemote: withoutPlaces((configuration) => removeRemote(core, configuration)),
  } satisfies HostPaths);
}

/** Messages travel, and those of the system name places. */
function withoutPlaces<T>(
  work: (configuration: string) => Promise<T>,
): (configuration: string) => Promise<T> {
  return async (configuration) => {
    try {
      return await work(configuration);
    } catch (cause) {
      const code = systemCode(cause);
      if (isReceiverError(cause) || code === undefined) throw cause;
      const facts = { configuration, fault: 'unreadable' };
      throw new ReceiverError('STORAGE', `a file of the build cannot be used (${code})`, facts, { cause });
    }
  };
}

function missing(what: string, configuration: string): ReceiverError {
  return new ReceiverError('STORAGE', `${what} is missing`, { configuration, fault: 'missing' });
}

/** The file at `firmware_bin_path`, or what a platform has in its place. */
async function firmwareOf(buildPath: string, storage: StorageJson): Promise<BuildFile | null> {
  const path = storage.firmwareBinPath;
  if (path === null) return null;
  const others = platformRow(storage.espPlatform)?.insteadOfFirmware ?? [];
  for (const candidate of [path, ...others.map((other) => join(dirname(path), other))]) {
    const file = await fileBelow(buildPath, candidate);
    if (file !== null) return file;
  }
  return null;
}

/** What the platform's row names, as places. */
function offered(storage: StorageJson, buildPath: string, firmware: string): string[] {
  const row = platformRow(storage.espPlatform);
  if (row === null) return [];
  const named = row.files.map((file) => join(buildPath, file.replaceAll('{name}', storage.name ?? '')));
  return [...named, ...row.downloads.map((download) => join(dirname(firmware), download))];
}

/** The regular file at `path`, or null when there is none. Throws `TRAVERSAL` for what lies or leads outside the build. */
async function fileBelow(buildPath: string, path: string): Promise<BuildFile | null> {
  const stat = await ifAny(lstat(path));
  if (stat === null) return null;
  await assertInside(buildPath, path, 'a file of the build');
  return stat.isFile() ? { name: basename(path), path, bytes: stat.size } : null;
}

/** Null where the file is not there; every other trouble is an error. */
async function ifAny<T>(reading: Promise<T>): Promise<T | null> {
  try {
    return await reading;
  } catch (error) {
    const isAbsent =
      systemCode(error) === 'ENOENT' ||
      (isReceiverError(error, 'STORAGE') && error.facts['fault'] === 'missing');
    if (isAbsent) return null;
    throw error;
  }
}
