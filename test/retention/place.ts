/** Devices on a real disk with their retention records, and leases that tests can observe and refuse. */
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { createReserve, type Reserve } from '../../src/disk/reserve.js';
import { silentLog as log } from '../../src/log.js';
import { ReceiverError } from '../../src/errors.js';
import {
  createPaths,
  dashboardId,
  deviceFromFile,
  fileName,
  type Layout,
  type RemoteKey,
} from '../../src/paths/index.js';
import { openDeviceUsage, type DeviceUsageLog } from '../../src/retention/device-usage.js';
import type { UnderLease } from '../../src/retention/sweep.js';
import { manualClock, type ManualClock } from '../async/manual-clock.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';

export const mine = dashboardId('dashboard-of-mine');
export const other = dashboardId('dashboard-of-others');

export interface Place {
  readonly base: string;
  readonly layout: Layout;
  readonly usage: DeviceUsageLog;
  readonly log: typeof log;
  readonly underLease: UnderLease;
  readonly reserve: Reserve;
  /** Devices whose lease was acquired, in order. */
  readonly leased: string[];
  /** Devices whose lease another owner holds. */
  readonly held: Set<string>;
  readonly clock: ManualClock;
  /** Called under the lease, before the work. */
  onLease: (key: RemoteKey) => void;
  list(peer: string, device: string): Promise<string[]>;
}

export function keyOf(peer: RemoteKey['dashboardId'], device: string): RemoteKey {
  return { dashboardId: peer, device: deviceFromFile(fileName(`${device}.yaml`)) };
}

const files = [
  'config/kitchen.yaml',
  '.config.from',
  'storage/kitchen.yaml.json',
  'build/k/program',
  'idedata/k.json',
];

/** Creates a device's directory with files of every kind. */
export async function plant(layout: Layout, key: RemoteKey, buildBytes = 10_000): Promise<void> {
  const subtree = layout.subtree(key);
  for (const name of [...files, '.unfinished', 'out/of/the/way']) {
    await mkdir(join(subtree, name, '..'), { recursive: true });
    await writeFile(join(subtree, name), name.endsWith('program') ? Buffer.alloc(buildBytes, 1) : name);
  }
}

export async function emptyPlace(t: Cleanups): Promise<Place> {
  const base = await tempDir(t);
  const { layout } = createPaths({ configDir: join(base, 'config') });
  for (const directory of [layout.trashDir, layout.devicesDir]) await mkdir(directory, { recursive: true });
  const leased: string[] = [];
  const held = new Set<string>();
  const here = {
    ...{ base, layout, leased, held, log, reserve: createReserve([], log) },
    clock: manualClock(),
    onLease: (_key: RemoteKey): void => {},
    underLease: (async (key, _reason, work) => {
      if (held.has(key.device)) throw new ReceiverError('LOCK_TIMEOUT', 'the device is busy');
      leased.push(`${key.dashboardId}/${key.device}`);
      here.onLease(key);
      return work({ publish: (act) => act() });
    }) as UnderLease,
    list: async (peer: string, device: string) =>
      (await readdir(join(layout.buildsDir, peer, device))).toSorted(),
  };
  return Object.assign(here, { usage: await openDeviceUsage(here) });
}

/** Two peers with two devices each. */
export async function place(t: Cleanups): Promise<Place> {
  const here = await emptyPlace(t);
  for (const peer of [mine, other])
    for (const device of ['kitchen', 'hall']) await plant(here.layout, keyOf(peer, device));
  await here.usage.refresh();
  await here.usage.settled();
  return here;
}
