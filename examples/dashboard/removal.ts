/**
 * Archiving and deleting. A peer's device is removed as a whole, once its compile has ended. For the dashboard's own
 * devices, the build is removed first and the YAML last, so a device that is only half removed stays in the list.
 */
import { constants } from 'node:fs';
import { copyFile, mkdir, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';

import type { Receiver } from 'koa-esphome-receiver';

/** Removes a device with all its files. Throws `TRAVERSAL` and `LOCK_TIMEOUT` as the hook does. */
export async function deleteDevice({ paths, hostPaths }: Receiver, configuration: string): Promise<void> {
  if (paths.parseConfiguration(configuration) !== null) return hostPaths.removeRemote(configuration);
  const places = await hostPaths.archivePaths(configuration);
  await hostPaths.wipeBuild(configuration);
  for (const sidecar of [places.storage, ...places.validated]) await rm(sidecar, { force: true });
  await rm(places.config);
}

/** Keeps a copy of the YAML in `archive/`, as ESPHome's own dashboard did, and deletes the rest. Throws `EEXIST`. */
export async function archiveDevice(receiver: Receiver, configuration: string): Promise<void> {
  const { config } = await receiver.hostPaths.archivePaths(configuration);
  const archive = join(receiver.paths.configDir, 'archive');
  await mkdir(archive, { recursive: true });
  await copyFile(config, join(archive, basename(config)), constants.COPYFILE_EXCL);
  await deleteDevice(receiver, configuration);
}
