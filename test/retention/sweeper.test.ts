/** When the sweeper works, and that no peer can overload it. Covers src/retention/service.ts. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';

import { exampleRecord } from '../../src/testing/example-record.js';
import type { JobEvent } from '../../src/jobs/lifecycle.js';
import { openSweeper, type Sweeper, type SweeperDeps } from '../../src/retention/sweeper.js';
import { manualClock } from '../async/manual-clock.js';
import { keyOf, mine, place } from './place.js';
import { defaultOptions } from '../support/options.js';

interface Played {
  readonly sweeper: Sweeper;
  readonly tell: (event: JobEvent) => void;
  /** Measured devices, in order. */
  readonly measured: string[];
  /** How often the devices were listed. */
  readonly asked: () => number;
}

async function play(t: TestContext): Promise<Played> {
  const here = await place(t);
  const measured: string[] = [];
  let asked = 0;
  let tell: Played['tell'] = () => {};
  const nothing = { list: async () => [], remove: async () => false };
  const jobs: SweeperDeps['jobs'] = {
    resultBytes: () => new Map(),
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
      retention: defaultOptions.retention,
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
