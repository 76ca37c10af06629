/** The machine's clock, and the detection of a wall clock that was set. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { systemClock, watchWallClock } from '../../src/async/clock.js';
import { manualClock } from './manual-clock.js';

test('The machine tells the time since 1970 and a time that never goes back, and calls back once', async () => {
  assert.ok(Math.abs(systemClock.wall() - Date.now()) < 60_000);
  const before = systemClock.steady();
  const calls: string[] = [];
  const cancel = systemClock.after(1, () => calls.push('cancelled'), true);
  cancel();
  await new Promise<void>((resolve) => {
    systemClock.after(2, () => calls.push('called'), true);
    systemClock.after(20, resolve, true);
  });
  assert.deepEqual(calls, ['called']);
  assert.ok(systemClock.steady() - before >= 19);
});

test('Only a wall clock that is set forward by a minute or more has jumped, and it is told once', () => {
  const clock = manualClock();
  const jumps = watchWallClock(clock);
  clock.advance(86_400_000);
  assert.equal(jumps.taken(), 0, 'time passed on both');
  clock.jump(59_999);
  assert.equal(jumps.taken(), 0, 'clocks differ by as much');
  clock.jump(60_000);
  clock.advance(5_000);
  assert.deepEqual([jumps.taken(), jumps.taken()], [60_000, 0]);
  clock.jump(-3_600_000);
  assert.equal(jumps.taken(), 0, 'it was set back');
  clock.jump(3_600_000);
  assert.equal(jumps.taken(), 3_600_000);
});

test('A clock of a test calls back in order, each at its own moment, and counts what still waits', () => {
  const clock = manualClock({ wall: 10_000 });
  const calls: (readonly [string, number])[] = [];
  const note = (name: string) => (): void => void calls.push([name, clock.wall()]);
  clock.after(200, note('late'));
  clock.after(100, () => {
    note('early')();
    clock.after(50, note('again'));
  });
  const cancel = clock.after(150, note('cancelled'));
  cancel();
  clock.advance(199);
  assert.deepEqual(calls, [
    ['early', 10_100],
    ['again', 10_150],
  ]);
  assert.equal(clock.waiting, 1);
  clock.jump(-5_000);
  clock.advance(1);
  assert.deepEqual(calls.at(-1), ['late', 5_200]);
});
