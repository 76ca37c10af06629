/** When the sweeper works, and that no peer can overload it. Covers src/retention/service.ts. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import { exampleRecord } from '../../src/testing/job-store-suite.js';
import type { JobEvent } from '../../src/jobs/lifecycle.js';
import { openSweeper, type Sweeper, type SweeperDeps } from '../../src/retention/sweeper.js';
import type { RetentionLimits } from '../../src/options/core-options.js';
import type { DashboardId } from '../../src/paths/index.js';
import { manualClock } from '../async/manual-clock.js';
import { keyOf, mine, other, place } from './place.js';
import { defaultOptions } from '../support/options.js';

interface Played {
  readonly sweeper: Sweeper;
  readonly tell: (event: JobEvent) => void;
  /** Measured devices, in order. */
  readonly measured: string[];
  /** How often the devices were listed. */
  readonly asked: () => number;
}

async function play(
  t: TestContext,
  {
    staged = new Map(),
    limits = {},
  }: { staged?: Map<DashboardId, number>; limits?: Partial<RetentionLimits> } = {},
): Promise<Played> {
  const here = await place(t);
  const measured: string[] = [];
  let asked = 0;
  let tell: Played['tell'] = () => {};
  const nothing = { list: async () => [], remove: async () => false };
  const jobs: SweeperDeps['jobs'] = {
    resultBytes: () => new Map(),
    stagedBytes: () => staged,
    isBusy: () => false,
    subscribe(listener) {
      tell = listener;
      return () => {};
    },
  };
  const sweeper = openSweeper({
    ...here,
    jobs,
    usage: {
      ...here.usage,
      list() {
        asked += 1;
        return here.usage.list();
      },
      async measure(key, signal) {
        measured.push(key.device);
        await here.usage.measure(key, signal);
      },
    },
    ...{
      results: nothing,
      tools: nothing,
      retention: { ...defaultOptions.retention, ...limits },
      resultTtlMs: 1_000,
      minFreeDiskBytes: 0,
    },
    clock: manualClock(),
  });
  t.after(() => sweeper.close());
  return { sweeper, tell: (event) => tell(event), measured, asked: () => asked };
}

test('A device whose jobs end by the thousand is measured once', async (t) => {
  const { sweeper, tell, measured } = await play(t);
  const end = (device: string): void => {
    const job = exampleRecord({ ...keyOf(mine, device), state: 'failed' });
    tell({ type: 'state', job });
  };
  for (let n = 0; n < 1_000; n += 1) end('hall');
  end('kitchen');
  await sweeper.sweep({ dryRun: true });
  assert.deepEqual(measured, ['hall', 'kitchen']);
  end('hall');
  await sweeper.sweep({ dryRun: true });
  assert.deepEqual(measured, ['hall', 'kitchen', 'hall']);
});

test('Hundreds of uploads announced at once add up the disk usage only once', async (t) => {
  const { sweeper, asked } = await play(t);
  const before = asked();
  for (let n = 0; n < 300; n += 1) sweeper.noRoomFor(mine, 1_000);
  assert.equal(asked(), before + 1);
  await new Promise(setImmediate);
  sweeper.noRoomFor(mine, 1_000);
  assert.equal(asked(), before + 2);
});

test('Bundles that arrive or wait count in the share of their peer, and usage shows them', async (t) => {
  const staged = new Map([[mine, 600]]);
  const { sweeper } = await play(t, { staged, limits: { maxBuildBytesPerPeer: 1_000 } });
  assert.equal(sweeper.noRoomFor(mine, 400), null);
  assert.equal(sweeper.noRoomFor(mine, 401)?.reason, 'quota_exceeded');
  const room = sweeper.openRoom({ dashboardId: mine, target: 'compile' });
  const second = sweeper.openRoom({ dashboardId: mine, target: 'compile' });
  assert.equal(room.take(300), null);
  assert.equal(second.take(101)?.reason, 'quota_exceeded', 'two uploads share what is left');
  assert.equal(second.take(100), null);
  assert.equal(sweeper.noRoomFor(mine, 1)?.reason, 'quota_exceeded');
  assert.equal(sweeper.openRoom({ dashboardId: other, target: 'compile' }).take(999), null);
  const { staged: all, peers } = await sweeper.usage();
  assert.deepEqual(
    [all, peers.map((peer) => [peer.dashboardId, peer.staged])],
    [
      1_999,
      [
        [mine, 1_000],
        [other, 999],
      ],
    ],
  );
  room.release();
  room.release();
  assert.equal(second.take(300), null);
});

test('The bundle of a clean is refused only if other bundles exist', async (t) => {
  const { sweeper } = await play(t, {
    staged: new Map([[mine, 900]]),
    limits: { maxBuildBytesPerPeer: 1_000 },
  });
  const room = sweeper.openRoom({ dashboardId: mine, target: 'clean' });
  assert.equal(room.take(100), null);
  assert.equal(room.take(1)?.reason, 'quota_exceeded');
});
