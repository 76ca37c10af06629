/**
 * The resolver hook: what a dashboard asks instead of joining paths by itself.
 *
 * Every look-up goes through the one resolver, so a host that uses these is right for its own configurations and
 * for those of peers alike. Whatever is absent is an error that says which kind of file is missing: a reader that
 * shrugs shows "0 bytes" for a build that lies somewhere else. A peer's build is code and may plant links: `config`
 * as one to the host's own YAMLs would have the host delete those, so a place that leads out of it is refused.
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
import { assertInside, assertUnlinked } from '../disk/contained.js';
import { readRegular } from '../disk/open-regular.js';
import { removeTree, moveToTrash } from '../disk/remove.js';
import { measure, type Usage } from '../disk/usage.js';
import { isReceiverError, ReceiverError, systemCode } from '../errors.js';
import { parseJsonObject } from '../disk/json.js';
import type { StorageJson } from '../esphome/storage-json.js';
import type { Configuration, Paths, RemoteKey } from '../paths/index.js';
import { remoteKeyOf } from '../paths/resolver.js';
import type { ReceiverCore } from '../receiver-api.js';

/** A file of a build, as a page offers it. */
export interface HostFile {
  /** The base name. */
  readonly name: string;
  /** Absolute, without links. */
  readonly path: string;
  readonly bytes: number;
}

export interface HostArtifacts {
  readonly storage: StorageJson;
  /** The file at `firmware_bin_path`, or what stands in for it where the toolchain writes none. */
  readonly firmware: HostFile;
  /** The files that a peer would get too, the firmware first. No name comes twice. */
  readonly files: readonly HostFile[];
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
  loadBuildArtifacts(configuration: string): Promise<HostArtifacts>;
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

export function createHostPaths(core: Pick<ReceiverCore, 'paths' | 'underLease' | 'clean'>): HostPaths {
  const { paths } = core;

  function storageOf(configuration: string): Promise<StorageJson> {
    return readSidecar(paths, configuration);
  }

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
    const key = paths.parseConfiguration(configuration);
    if (key === null) return wipeLocal(configuration);
    await core.clean(configuration);
  }

  async function wipeLocal(configuration: string): Promise<void> {
    const storage = await ifAny(storageOf(configuration));
    if (storage === null) return;
    const { buildPath } = storage;
    if (buildPath !== null) {
      // Below it any name will do: the sidecar's own may be none that ESPHome would choose.
      const root = dirname(paths.resolveBuildPath(configuration, { name: 'any' }));
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
    loadStorage: (configuration) => withoutPlaces(() => storageOf(configuration)),
    loadBuildArtifacts: (configuration) => withoutPlaces(() => loadBuildArtifacts(configuration)),
    buildSize: (configuration) => withoutPlaces(() => buildSize(configuration)),
    configHash: (configuration) => withoutPlaces(() => configHash(configuration)),
    wipeBuild: (configuration) => withoutPlaces(() => wipeBuild(configuration)),
    archivePaths: (configuration) => withoutPlaces(() => archivePaths(configuration)),
    listRemote: () => listRemote(paths),
    removeRemote: (configuration) => withoutPlaces(() => removeRemote(core, configuration)),
  } satisfies HostPaths);
}

function hostFile({ name, path, size }: BuildFile): HostFile {
  return { name: basename(name), path, bytes: size };
}

/** Null where there is no sidecar; every other trouble is an error. */
async function ifAny(reading: Promise<StorageJson>): Promise<StorageJson | null> {
  try {
    return await reading;
  } catch (error) {
    if (isReceiverError(error, 'STORAGE') && error.facts['fault'] === 'missing') return null;
    throw error;
  }
}

/**
 * The builds of peers as a whole: which there are, and the removal of one. A host that walked the directories by
 * itself would follow a link that a peer's build has planted, or delete under a running compiler.
 */

/** The configurations of all builds that are here, also of those whose jobs are forgotten. In order of their names. */
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

/**
 * Removes all that is here of one device of a peer, once no build of it runs. Nothing there is fine. Throws `STATE`
 * for a local configuration, `TRAVERSAL` for a directory that is reached through a link, `LOCK_TIMEOUT`.
 */
async function removeRemote(
  { paths, underLease }: Pick<ReceiverCore, 'paths' | 'underLease'>,
  configuration: string,
): Promise<void> {
  const key = remoteKeyOf(paths, configuration);
  const { layout, buildsDir } = paths;
  await underLease(key, 'the device is being removed', async () => {
    await assertUnlinked(buildsDir, layout.subtree(key));
    const trashed = await moveToTrash(layout.subtree(key), layout.trashDir);
    if (trashed !== null) await removeTree(trashed);
  });
}

/** What the names of two directories mean together; the parser decides. */
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

/** Names of real directories or files, never of links. A directory that is not there has none. */
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

/** What the parser refuses is not a build. */
function orNull<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (isReceiverError(error, 'TRAVERSAL')) return null;
    throw error;
  }
}
