/**
 * Where everything of ours lies below the builds directory. Pure strings; nothing here touches a disk.
 *
 * A device's subtree is its `ESPHOME_DATA_DIR`, and the uploaded configuration lies in it as `config/`, so that
 * replacing the one never touches ESPHome's caches beside it. What belongs to no device is below `.receiver`: an
 * id cannot begin with a dot, so no peer's directory can be that one.
 */
import type { posix } from 'node:path';

import type { RemoteKey } from './configuration.js';

/** The path rules of a platform. Newer types of Node have no name for it that older ones have. */
export type PlatformPath = typeof posix;

export interface Layout {
  readonly buildsDir: string;
  readonly receiverDir: string;
  readonly locksDir: string;
  readonly uploadsDir: string;
  readonly jobsDir: string;
  /** What is known of each device's use and size. */
  readonly devicesDir: string;
  /** Whose key the data of each peer's id belongs to. */
  readonly ownersDir: string;
  readonly artifactsDir: string;
  readonly trashDir: string;
  readonly venvsDir: string;
  readonly toolchainsDir: string;
  /** All of ours, to be made at the start. */
  readonly ownDirectories: readonly string[];
  /** The data directory of one device of one peer. */
  subtree(key: RemoteKey): string;
  /** The uploaded configuration of that device. */
  configTree(key: RemoteKey): string;
}

/** `buildsDir` must be absolute. */
export function createLayout(buildsDir: string, path: PlatformPath): Layout {
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
