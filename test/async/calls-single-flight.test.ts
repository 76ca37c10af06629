import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';

import fc from 'fast-check';

import { createSingleFlight, runOnce, shareInFlight, type FlightCaller } from '../../src/async/calls.js';
import { manualClock } from './manual-clock.js';

const limits = { maxAtOnce: 2, maxLines: 3, maxLineLength: 10 } as const;

/** Work that a test ends by itself, and that takes a moment to end when it is told to. */
function handWork() {
  const works: { readonly key: string; readonly caller: FlightCaller; end(result: string | Error): void }[] =
    [];
  let running = 0;
  const share = createSingleFlight<string>(async (key, caller) => {
    running += 1;
    try {
      return await new Promise<string>((resolve, reject) => {
        const end = (result: string | Error): void =>
          typeof result === 'string' ? resolve(result) : reject(result);
        works.push({ key, caller, end });
        caller.signal.addEventListener('abort', () => setImmediate(() => end(new Error('ended'))));
      });
    } finally {
      running -= 1;
    }
  }, limits);
  return { works, share, running: () => running };
}

function aCaller() {
  const controller = new AbortController();
  const lines: string[] = [];
  return { controller, lines, signal: controller.signal, output: (line: string) => void lines.push(line) };
}

test('Callers with the same key share one piece of work, its result and its output so far', async () => {
  const { works, share } = handWork();
  const [early, late] = [aCaller(), aCaller()];
  const first = share('a', early);
  works[0]?.caller.output('one\n');
  const second = share('a', late);
  works[0]?.caller.output('two\n');
  works[0]?.end('done');
  assert.deepEqual(await Promise.all([first, second]), ['done', 'done']);
  assert.deepEqual(
    [early.lines, late.lines],
    [
      ['one\n', 'two\n'],
      ['one\n', 'two\n'],
    ],
  );
  works[0]?.caller.output('after the end\n');
  assert.equal(early.lines.length, 2);

  const again = share('a', aCaller());
  assert.equal(works.length, 2, 'what has ended is not shared');
  works[1]?.end(new Error('no'));
  await assert.rejects(again, /^Error: no$/);
});

test('A caller that aborts gets its reason at once and no more output; the last one waits for the end of the work', async () => {
  const { works, share, running } = handWork();
  const [one, two] = [aCaller(), aCaller()];
  const calls = [share('a', one), share('a', two)];
  one.controller.abort(new Error('first left'));
  await assert.rejects(calls[0] as Promise<string>, /first left/);
  assert.equal(running(), 1);
  works[0]?.caller.output('line\n');
  assert.deepEqual([one.lines, two.lines], [[], ['line\n']]);
  two.controller.abort(new Error('second left'));
  await assert.rejects(calls[1] as Promise<string>, /second left/);
  assert.equal(running(), 0);
  await assert.rejects(share('a', two), /second left/);
  assert.equal(works.length, 1);
});

test('A caller that arrives while aborted work ends starts anew', async () => {
  const { works, share } = handWork();
  const one = aCaller();
  const left = share('a', one);
  one.controller.abort(new Error('left'));
  while (works[0]?.caller.signal.aborted === false) await Promise.resolve();
  const next = share('a', aCaller());
  await assert.rejects(left, /left/);
  works[1]?.end('new');
  assert.equal(await next, 'new');
});

test('The number of concurrent runs is limited; a waiting caller can abort, and sees why it waits', async () => {
  const { works, share } = handWork();
  const [third, fourth] = [aCaller(), aCaller()];
  const running = [share('a', aCaller()), share('b', aCaller())];
  const waiting = [share('c', third), share('d', fourth)];
  third.controller.abort(new Error('left'));
  await assert.rejects(waiting[0] as Promise<string>, /left/);
  assert.equal(works.length, 2);
  works[0]?.end('a');
  await running[0];
  await turn();
  assert.deepEqual(
    works.map(({ key }) => key),
    ['a', 'b', 'd'],
  );
  works[1]?.end('b');
  works[2]?.end('d');
  assert.deepEqual(await Promise.all([running[1], waiting[1]]), ['b', 'd']);
  assert.match(fourth.lines.join(''), /^Waiting/);
});

test('Output is bounded, in lines and in line length', async () => {
  const { works, share } = handWork();
  const caller = aCaller();
  const call = share('a', caller);
  for (const line of ['1\n', '0123456789abc\n', '3\n', '4\n', '5\n']) works[0]?.caller.output(line);
  works[0]?.end('');
  await call;
  assert.deepEqual(caller.lines, [
    '1\n',
    '0123456789…\n',
    '3\n',
    '[the rest of the installation is not shown]\n',
  ]);
});

test('In any order of calls and aborts every caller gets an answer, and nothing runs without a caller', async () => {
  const steps = fc.array(fc.tuple(fc.constantFrom('join', 'leave', 'end', 'turn'), fc.nat(5)), {
    maxLength: 30,
  });
  await fc.assert(
    fc.asyncProperty(steps, async (acts) => {
      const { works, share, running } = handWork();
      const callers: ReturnType<typeof aCaller>[] = [];
      const calls: Promise<unknown>[] = [];
      for (const [act, which] of acts) {
        if (act === 'join') {
          const caller = aCaller();
          callers.push(caller);
          calls.push(share('abc'[which % 3] as string, caller).catch(() => 'left'));
        }
        if (act === 'leave') callers[which]?.controller.abort(new Error('left'));
        if (act === 'end') works[which]?.end('done');
        if (act === 'turn') await turn();
        assert.ok(running() <= limits.maxAtOnce);
      }
      for (const { controller } of callers) controller.abort(new Error('left'));
      await Promise.all(calls);
      assert.equal(running(), 0);
    }),
    { numRuns: 200 },
  );
});

test('Calls share running work, and ended work while it is fresh', async () => {
  const clock = manualClock();
  let begun = 0;
  const ends: ((result: string) => void)[] = [];
  const work = (): Promise<string> => {
    begun += 1;
    return new Promise((resolve) => ends.push(resolve));
  };
  const share = shareInFlight(work, { freshMs: 100, clock });
  const calls = [share(), share()];
  clock.advance(1_000);
  calls.push(share());
  ends[0]?.('first');
  assert.deepEqual([await Promise.all(calls), begun], [['first', 'first', 'first'], 1]);
  clock.advance(99);
  assert.deepEqual([await share(), begun], ['first', 1]);
  clock.advance(1);
  const next = share();
  ends[1]?.('second');
  assert.deepEqual([await next, begun], ['second', 2]);
});

test('With no freshness time each call after the end starts anew, also after a failure', async () => {
  let begun = 0;
  const share = shareInFlight(
    async () => {
      begun += 1;
      await turn();
      throw new Error(`failure ${begun}`);
    },
    { freshMs: 0, clock: manualClock() },
  );
  await Promise.all([assert.rejects(share(), /failure 1/), assert.rejects(share(), /failure 1/)]);
  await assert.rejects(share(), /failure 2/);
});

test('runOnce runs on the first call, and all calls get its result', () => {
  let done = 0;
  const end = runOnce(() => (done += 1));
  assert.deepEqual([end(), end(), done], [1, 1, 1]);
  const nothing = runOnce(() => void (done += 1));
  nothing();
  nothing();
  assert.equal(done, 2);
});
