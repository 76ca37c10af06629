/**
 * What must hold of the builds whatever comes in whatever order: the truth beside the retentionService, from true time and from
 * walks of the disk, and the checks of the two against each other.
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
/** Uses are on record to the minute. */
const lostMs = minuteMs + 1;

export interface World {
  readonly here: KeptPlace;
  /** Device by device, when it was used last, of the steady clock. */
  readonly uses: Map<string, number>;
  /** By how much the wall clock was set since the retentionService has looked at it. */
  unheededMs: number;
  /** The next removal is the last act of its receiver. */
  death: Death | null;
  /** Resolves when the present receiver dies. */
  died: Promise<void>;
  /** What dead receivers have left in the trash. */
  deadTrash: number;
  /** Until then, of the steady clock, figures may be those from before a death; then all has been measured anew. */
  staleUntil: number;
  /** The steady clock. */
  now(): number;
  nameOf(key: RemoteKey): string;
  /** Notes a use that the retentionService is told of as well. */
  use(key: RemoteKey): void;
  onDisk(): RemoteKey[];
  bytes(keys: readonly RemoteKey[]): Promise<number>;
}

export async function createModelWorld(t: Cleanups): Promise<World> {
  const underLease: UnderLease = async (_key, _reason, work) => {
    // Read once: another life may begin meanwhile.
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

/** One world lives at a time. */
function nextDeath(): Promise<void> {
  return new Promise((resolve) => (tellDeath = resolve));
}

/** Another receiver begins on the disk; the one before has died, or ended well. */
export async function restart(world: World, { hasDied }: { readonly hasDied: boolean }): Promise<void> {
  const { here } = world;
  const limits = here.retentionService.retention.limits();
  here.jobs.hush();
  // What it had yet to write, of a step of the clock above all, is lost with it.
  if (hasDied) {
    world.uses.clear();
    world.deadTrash = (await readdir(here.layout.trashDir)).length;
    world.staleUntil = world.now() + 3 * dayMs;
  } else await here.retentionService.close();
  world.death = null;
  world.died = nextDeath();
  // Nobody is left who could tell that the clock was set.
  if (world.unheededMs > 0) world.uses.clear();
  for (const [name, usedAt] of world.uses) world.uses.set(name, usedAt - lostMs);
  world.unheededMs = 0;
  await here.restart({ retention: limits });
}

/** Work that a death may cut short; null then, and another receiver has begun. */
export async function survive<T>(world: World, work: () => Promise<T>): Promise<T | null> {
  const result = await Promise.race([work(), world.died.then(() => null)]);
  if (result !== null) world.unheededMs = 0;
  return result;
}

/** Waits for what the end of a job has begun; a quota may have others go, or the receiver die. */
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

/** Of a wet sweep: what it has taken away was to go, and what had to go is gone. `before`: what was there. */
export async function assertSwept(
  world: World,
  before: readonly Sized[],
  report: SweepReport,
): Promise<void> {
  const { here, nameOf } = world;
  const { maxBuildBytes, maxBuildBytesPerPeer } = here.retentionService.retention.limits();
  const after = world.onDisk().map(nameOf);
  const gone = before.filter(({ key }) => !after.includes(nameOf(key)));
  assert.deepEqual(namesIn(report), gone.map(({ key }) => nameOf(key)).toSorted(), 'the report is true');
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

/** Within one in a hundred of a walk, device by device. */
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

/** Nobody does anything for as long as things are kept: all limits hold, and nothing is left. */
export async function assertQuiet(world: World): Promise<void> {
  const { here } = world;
  const { retention } = here.retentionService;
  for (const job of here.jobs.list()) here.jobs.end(job.id);
  await retention.sweep();
  await assertUsage(world);
  here.clock.advance(retention.limits().buildTtlMs + 2 * minuteMs);
  await retention.sweep();
  assert.deepEqual(world.onDisk(), [], 'what nobody uses goes');
  assert.deepEqual(await readRecords(here.layout.devicesDir), []);
  assert.equal((await retention.usage()).builds, 0);
  assert.equal((await readdir(here.layout.trashDir)).length, world.deadTrash, 'only the dead leave trash');
  await here.assertCanaries();
}

export const peerOf = (which: number): DashboardId => (which === 0 ? mine : other);
