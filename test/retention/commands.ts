/** Events that can happen to a receiver's builds in any order, and what must hold after each. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import fc from 'fast-check';

import { fileName, formatConfiguration, type RemoteKey } from '../../src/paths/index.js';
import type { RetentionLimits } from '../../src/options/core-options.js';
import type { ResetTarget } from '../../src/retention/service.js';
import type { Cleanups } from '../support/temp-dir.js';
import * as model from './model.js';
import { plant } from './place.js';

type World = model.World;
type Command = fc.AsyncCommand<object, World>;

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;

/** fast-check prints `name`; `run` performs the command and checks the result. */
function command(name: string, run: (world: World) => Promise<void>): Command {
  return {
    check: () => true,
    toString: () => name,
    async run(_, world) {
      await run(world);
      await world.here.assertCanaries();
    },
  };
}

const key = fc.constantFrom(...model.keys);
const nameOf = ({ dashboardId, device }: RemoteKey): string => `${dashboardId.at(-1)}/${device}`;

const build = fc.tuple(key, fc.integer({ min: 1, max: 60 })).map(([which, blocks]) =>
  command(`build ${nameOf(which)} ${blocks}`, async (world) => {
    const { here } = world;
    const { id } = here.jobs.begin(which);
    await plant(here.layout, which, blocks * 4_096);
    here.jobs.end(id);
    world.use(which);
    await model.settled(world);
  }),
);

const wait = key.map((which) =>
  command(`job of ${nameOf(which)}`, async (world) => {
    world.here.jobs.begin(which);
    world.use(which);
  }),
);

const end = fc.nat(5).map((n) =>
  command(`end ${n}`, async (world) => {
    const live = world.here.jobs.list().filter((job) => world.here.jobs.isBusy(job));
    const job = live[n % Math.max(1, live.length)];
    if (job === undefined) return;
    world.here.jobs.end(job.id);
    world.use(job);
    await model.settled(world);
  }),
);

const download = fc.nat(9).map((n) =>
  command(`download ${n}`, async (world) => {
    const ended = world.here.jobs.list().filter(({ state }) => state === 'completed');
    const job = ended[n % Math.max(1, ended.length)];
    if (job === undefined) return;
    world.here.jobs.fetch(job.id);
    world.use(job);
  }),
);

const touch = key.map((which) =>
  command(`touch ${nameOf(which)}`, async (world) => {
    // A device that the receiver has not found yet counts as used once it is found.
    const { peers } = await world.here.retentionService.retention.usage();
    const isKnown = peers.some(
      (peer) =>
        peer.dashboardId === which.dashboardId && peer.devices.some(({ device }) => device === which.device),
    );
    world.here.retentionService.retention.touch(formatConfiguration(which, fileName(`${which.device}.yaml`)));
    if (isKnown) world.use(which);
  }),
);

async function sweep(world: World): Promise<void> {
  const { retention } = world.here.retentionService;
  const before = await model.sizedDevices(world);
  const dry = await retention.sweep({ dryRun: true });
  assert.deepEqual(await model.sizedDevices(world), before, 'a dry run removes nothing');
  const { builds } = await retention.usage();
  const isMeasured = builds === model.sum(before);
  const wet = await model.survive(world, () => retention.sweep());
  if (wet === null) return model.restart(world, { hasDied: true });
  if (isMeasured) assert.deepEqual(wet.removed, dry.removed, 'a dry run reports what a sweep removes');
  await model.assertSwept(world, before, wet);
  await model.assertUsage(world);
}

const sweepNow = fc.constant(command('sweep', sweep));

const sweepLater = fc.constantFrom(dayMs - minuteMs, dayMs, 3 * dayMs).map((ms) =>
  command(`pass ${ms / minuteMs} min and sweep`, async (world) => {
    world.here.clock.advance(ms);
    await sweep(world);
  }),
);

const bytes = fc.option(fc.constantFrom(0, 30_000, 150_000, 400_000));
const limits = fc
  .oneof(
    fc.record({ maxBuildBytes: bytes }),
    fc.record({ maxBuildBytesPerPeer: bytes }),
    fc.record({ buildTtlMs: fc.constantFrom(hourMs, dayMs, 3 * dayMs) }),
  )
  .map((changes: Partial<RetentionLimits>) =>
    command(`limits ${JSON.stringify(changes)}`, async (world) => {
      const before = await model.sizedDevices(world);
      const report = await model.survive(world, () =>
        world.here.retentionService.retention.setLimits(changes),
      );
      if (report === null) return model.restart(world, { hasDied: true });
      await model.assertSwept(world, before, report);
      await model.assertUsage(world);
    }),
  );

type Scope = 'device' | 'peer' | 'all';
const reset = fc
  .tuple(fc.constantFrom<Scope>('device', 'peer', 'all'), key, fc.boolean())
  .map(([scope, which, dryRun]) =>
    command(`reset ${scope} ${nameOf(which)} ${dryRun ? 'dry' : ''}`, async (world) => {
      const { here } = world;
      const isMeant = (each: RemoteKey): boolean =>
        scope === 'all' ||
        (each.dashboardId === which.dashboardId && (scope === 'peer' || each.device === which.device));
      const before = await model.sizedDevices(world);
      const target: ResetTarget =
        scope === 'all'
          ? 'all'
          : scope === 'peer'
            ? { dashboardId: which.dashboardId }
            : { configuration: formatConfiguration(which, fileName(`${which.device}.yaml`)) };
      const report = await model.survive(world, () =>
        here.retentionService.retention.reset(target, { dryRun }),
      );
      const others = (list: readonly model.Sized[]): readonly model.Sized[] =>
        list.filter((each) => !isMeant(each.key));
      assert.deepEqual(
        others(await model.sizedDevices(world)),
        others(before),
        'other devices are untouched',
      );
      if (report === null) return model.restart(world, { hasDied: true });
      assert.deepEqual(report.left, []);
      for (const { key: each, bytes: size } of before.filter((sized) => isMeant(sized.key))) {
        const subtree = here.layout.subtree(each);
        assert.equal(existsSync(join(subtree, 'build')), dryRun && existsSync(join(subtree, 'build')));
        if (dryRun) assert.equal(await world.bytes([each]), size, 'a dry run removes nothing');
        else assert.ok(existsSync(join(subtree, 'config')) && existsSync(join(subtree, 'storage')));
      }
    }),
  );

const revoke = fc.nat(1).map((n) =>
  command(`revoke ${n}`, async (world) => {
    const peer = model.peerOf(n);
    const others = (list: readonly model.Sized[]): readonly model.Sized[] =>
      list.filter((each) => each.key.dashboardId !== peer);
    const before = await model.sizedDevices(world);
    const { here } = world;
    const done = await model.survive(world, async () => {
      await here.retentionService.owners.remove(peer);
      return true;
    });
    assert.deepEqual(others(await model.sizedDevices(world)), others(before), 'other peers are untouched');
    if (done === null) return model.restart(world, { hasDied: true });
    assert.deepEqual(others(before).length, world.onDisk().length, 'all data of a revoked peer is removed');
    for (const each of model.keys) if (each.dashboardId === peer) world.uses.delete(world.nameOf(each));
  }),
);

const pass = fc.constantFrom(10 * minuteMs, hourMs, 23 * hourMs, dayMs).map((ms) =>
  command(`pass ${ms / minuteMs} min`, async (world) => {
    world.here.clock.advance(ms);
  }),
);

const steps = [-400 * dayMs, -dayMs, -hourMs, -5 * minuteMs, 5 * minuteMs, hourMs, dayMs, 400 * dayMs];
const step = fc.constantFrom(...steps).map((ms) =>
  command(`set the clock by ${ms / minuteMs} min`, async (world) => {
    world.here.clock.jump(ms);
    world.unheededMs += ms;
  }),
);

const crash = fc.constant(
  command('restart', async (world) => {
    await model.restart(world, { hasDied: false });
  }),
);

const doom = fc.constantFrom(...model.deaths).map((death) =>
  command(`die ${death}`, async (world) => {
    world.death = death;
  }),
);

const kinds = [
  build,
  build,
  wait,
  wait,
  end,
  download,
  touch,
  sweepNow,
  sweepLater,
  sweepLater,
  limits,
  reset,
  revoke,
  pass,
  pass,
  step,
  crash,
  doom,
];

/** Checks the property `numRuns` times, each in its own directory. */
export async function anyOrder(numRuns: number): Promise<void> {
  await fc.assert(
    fc.asyncProperty(fc.commands<object, World, false>(kinds, { maxCommands: 25 }), async (commands) => {
      const cleanups: (() => Promise<void> | void)[] = [];
      const t: Cleanups = { after: (cleanup) => void cleanups.unshift(cleanup) };
      try {
        const world = await model.createModelWorld(t);
        await fc.asyncModelRun(() => ({ model: {}, real: world }), commands);
        await model.restart(world, { hasDied: false });
        await model.assertQuiet(world);
      } finally {
        for (const cleanup of cleanups) await cleanup();
      }
    }),
    { numRuns },
  );
}
