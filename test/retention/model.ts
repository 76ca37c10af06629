/**
 * A model of the builds, based on true time and walks of the disk, and the checks that compare the retention service
 * with it after any order of events.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';

import { measure } from '../../src/disk/usage.js';
import type { DashboardId, RemoteKey } from '../../src/paths/index.js';
import { readRecords } from '../../src/retention/device-record.js';
import type { UnderLease, SweepReport } from '../../src/retention/sweep.js';
import type { Cleanups } from '../support/temp-dir.js';
import { keptPlace, type KeptPlace } from './kept-place.js';
import { keyOf, mine, other } from './place.js';

/** Where a receiver dies in the middle of a removal or a reset. */
export const deaths = ['before the move', 'after the move', 'after the lease'] as const;
export type Death = (typeof deaths)[number];

export const keys: readonly RemoteKey[] = [mine, other].flatMap((peer) =>
  ['kitchen', 'hall'].map((device) => keyOf(peer, device)),
);
const minuteMs = 60_000;
const dayMs = 1_440 * minuteMs;
/** Uses are recorded to the minute. */
const lostMs = minuteMs + 1;

export interface World {
  readonly here: KeptPlace;
  /** Last use of each device, by the steady clock. */
  readonly uses: Map<string, number>;
  /** How far the wall clock was set since the service last read it. */
  unheededMs: number;
  /** The receiver dies in its next removal. */
  death: Death | null;
  /** Resolves when the current receiver dies. */
  died: Promise<void>;
  /** Number of trash entries left by dead receivers. */
  deadTrash: number;
  /** Until then, by the steady clock, sizes can predate a death; after that, all were measured again. */
  staleUntil: number;
  /** The steady clock. */
  now(): number;
  nameOf(key: RemoteKey): string;
  /** Records a use that the service also sees. */
  use(key: RemoteKey): void;
  onDisk(): RemoteKey[];
  bytes(keys: readonly RemoteKey[]): Promise<number>;
}

export async function createModelWorld(t: Cleanups): Promise<World> {
  const underLease: UnderLease = async (_key, _reason, work) => {
    // Read once: another receiver can start in the meantime.
    const { death } = world;
    const die = (): Promise<never> => {
      tellDeath();
      return new Promise(() => {});
    };
    if (death === 'before the move') return die();
    let hasMoved = false;
    const result = await work({
      async publish(act) {
        const moved = await act();
        hasMoved ||= moved !== null;
        return death === 'after the move' && moved !== null ? die() : moved;
      },
    });
    return death === 'after the lease' && hasMoved ? die() : result;
  };
  const here = await keptPlace(t, { underLease });
  for (const name of ['beside', 'config/beside', 'config/.esphome/beside']) await here.canary(name);
  const nameOf = (key: RemoteKey): string => `${key.dashboardId}/${key.device}`;
  const world: World = {
    ...{ here, uses: new Map(), unheededMs: 0, death: null, deadTrash: 0, staleUntil: 0, nameOf },
    died: new Promise(() => {}),
    now: () => here.clock.steady(),
    use(key) {
      world.uses.set(nameOf(key), world.now());
      world.unheededMs = 0;
    },
    onDisk: () => keys.filter((key) => existsSync(here.layout.subtree(key))),
    async bytes(wanted) {
      let total = 0;
      for (const key of wanted) total += (await measure(here.layout.subtree(key))).diskBytes;
      return total;
    },
  };
  world.died = nextDeath();
  return world;
}

let tellDeath = (): void => {};

/** Only one world exists at a time. */
function nextDeath(): Promise<void> {
  return new Promise((resolve) => (tellDeath = resolve));
}

/** Starts another receiver on the disk after the previous one died or closed. */
export async function restart(world: World, { hasDied }: { readonly hasDied: boolean }): Promise<void> {
  const { here } = world;
  const limits = here.retentionService.retention.limits();
  here.jobs.hush();
  // Its pending writes are lost, above all those of a clock change.
  if (hasDied) {
    world.uses.clear();
    world.deadTrash = (await readdir(here.layout.trashDir)).length;
    world.staleUntil = world.now() + 3 * dayMs;
  } else await here.retentionService.close();
  world.death = null;
  world.died = nextDeath();
  // No receiver remains that could detect the clock change.
  if (world.unheededMs > 0) world.uses.clear();
  for (const [name, usedAt] of world.uses) world.uses.set(name, usedAt - lostMs);
  world.unheededMs = 0;
  await here.restart({ retention: limits });
}

/** Runs work that a death can interrupt; returns null then, and the caller restarts. */
export async function survive<T>(world: World, work: () => Promise<T>): Promise<T | null> {
  const result = await Promise.race([work(), world.died.then(() => null)]);
  if (result !== null) world.unheededMs = 0;
  return result;
}

/** Waits for the work that the end of a job starts: a quota can remove other devices, or the receiver can die. */
export async function settled(world: World): Promise<void> {
  const { jobs, retentionService } = world.here;
  const before = world.onDisk();
  const isAlive = await survive(world, () => retentionService.retention.sweep({ dryRun: true }));
  const after = world.onDisk();
  for (const key of before)
    if (jobs.isBusy(key)) assert.ok(after.includes(key), `${world.nameOf(key)} was busy`);
  if (isAlive === null) await restart(world, { hasDied: true });
}

function isDue(world: World, key: RemoteKey): boolean {
  const usedAt = world.uses.get(world.nameOf(key));
  return (
    usedAt === undefined || world.now() - usedAt >= world.here.retentionService.retention.limits().buildTtlMs
  );
}

/** Checks that a sweep removed exactly what it should. `before` lists the devices that were there. */
export async function assertSwept(
  world: World,
  before: readonly Sized[],
  report: SweepReport,
): Promise<void> {
  const { here, nameOf } = world;
  const { maxBuildBytes, maxBuildBytesPerPeer } = here.retentionService.retention.limits();
  const after = world.onDisk().map(nameOf);
  const gone = before.filter(({ key }) => !after.includes(nameOf(key)));
  assert.deepEqual(
    namesIn(report),
    gone.map(({ key }) => nameOf(key)).toSorted(),
    'the report matches the disk',
  );
  const fits = (list: readonly Sized[]): boolean =>
    sum(list) <= (maxBuildBytes ?? Infinity) &&
    [mine, other].every(
      (peer) => sum(list.filter(({ key }) => key.dashboardId === peer)) <= (maxBuildBytesPerPeer ?? Infinity),
    );
  const staying = before.filter(({ key }) => here.jobs.isBusy(key) || !isDue(world, key));
  for (const { key } of gone) {
    assert.ok(!here.jobs.isBusy(key), `${nameOf(key)} was busy`);
    assert.ok(isDue(world, key) || !fits(staying), `${nameOf(key)} was used and had room`);
  }
  const rest = before.filter(({ key }) => after.includes(nameOf(key)));
  const idle = rest.filter(({ key }) => !here.jobs.isBusy(key));
  const over = (list: readonly Sized[], most: number | null): boolean => most !== null && sum(list) > most;
  if (over(rest, maxBuildBytes)) assert.deepEqual(idle, [], 'the quota of all is kept');
  for (const peer of [mine, other]) {
    const own = ({ key }: Sized): boolean => key.dashboardId === peer;
    if (over(rest.filter(own), maxBuildBytesPerPeer))
      assert.deepEqual(idle.filter(own), [], 'that of a peer');
  }
  const records = await readRecords(here.layout.devicesDir);
  assert.deepEqual(
    records.map(nameOf).toSorted(),
    after.toSorted(),
    'each device has a record, and no other',
  );
  for (const { key } of gone) world.uses.delete(nameOf(key));
}

export interface Sized {
  readonly key: RemoteKey;
  readonly bytes: number;
}

export async function sizedDevices(world: World): Promise<Sized[]> {
  return Promise.all(world.onDisk().map(async (key) => ({ key, bytes: await world.bytes([key]) })));
}

export function sum(list: readonly Sized[]): number {
  return list.reduce((total, { bytes }) => total + bytes, 0);
}

function namesIn({ removed }: SweepReport): string[] {
  return removed
    .map(({ item }) => (item.kind === 'device' ? `${item.dashboardId}/${item.device}` : item.kind))
    .toSorted();
}

/** Checks that each device's reported size is within 1 % of a walk. */
export async function assertUsage(world: World): Promise<void> {
  if (world.now() < world.staleUntil) return;
  const { peers, builds } = await world.here.retentionService.retention.usage();
  const shown = peers.flatMap(({ dashboardId: id, devices }): [string, number][] =>
    devices.map(({ device, bytes }) => [`${id}/${device}`, bytes]),
  );
  for (const key of world.onDisk()) {
    const bytes = new Map(shown).get(world.nameOf(key)) ?? NaN;
    const walked = await world.bytes([key]);
    assert.ok(Math.abs(bytes - walked) <= walked / 100, `${world.nameOf(key)}: ${bytes} for ${walked}`);
  }
  const all = await world.bytes(world.onDisk());
  assert.ok(Math.abs(builds - all) <= all / 100, `all: ${builds} for ${all}`);
}

/** Checks that everything expires after `buildTtlMs` without use. */
export async function assertQuiet(world: World): Promise<void> {
  const { here } = world;
  const { retention } = here.retentionService;
  for (const job of here.jobs.list()) here.jobs.end(job.id);
  await retention.sweep();
  await assertUsage(world);
  here.clock.advance(retention.limits().buildTtlMs + 2 * minuteMs);
  await retention.sweep();
  assert.deepEqual(world.onDisk(), [], 'unused builds are removed');
  assert.deepEqual(await readRecords(here.layout.devicesDir), []);
  assert.equal((await retention.usage()).builds, 0);
  assert.equal(
    (await readdir(here.layout.trashDir)).length,
    world.deadTrash,
    'only dead receivers leave trash',
  );
  await here.assertCanaries();
}

export const peerOf = (which: number): DashboardId => (which === 0 ? mine : other);
