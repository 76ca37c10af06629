/** When a silent dashboard is called: Device Builder's times, and the invariants for any order of events. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as fc from 'fast-check';

import type { CallOutcome } from '../../src/server/connect-back.js';
import {
  defaultConnectBackTiming as timing,
  maxCalls,
  startConnectBackSchedule,
} from '../../src/server/connect-back-schedule.js';
import { dashboardId, type DashboardId } from '../../src/paths/index.js';
import type { Peer } from '../../src/peers/peer-row.js';
import { manualClock } from '../async/manual-clock.js';
import { recordingLog } from '../support/recording-log.js';
import { settled } from './setting.js';

const seconds = 1_000;
const refused = (reason: string): CallOutcome => ({ kind: 'refused', reason });
const failed: CallOutcome = { kind: 'failed', cause: new Error('nobody there') };
const accepted: CallOutcome = { kind: 'accepted' };

function peerNamed(name: string, changes: Partial<Peer> = {}): Peer {
  return {
    ...{ dashboardId: dashboardId(name), pin: 'ab'.repeat(32), label: '', labelAuto: false, pairedAt: 0 },
    ...{ address: '192.0.2.10', connectBackPort: 6055, friendlyName: '', haAddon: false },
    ...changes,
  };
}

interface PlayedCall {
  readonly id: DashboardId;
  /** In seconds since the start, like `endedAt`. */
  readonly at: number;
  readonly signal: AbortSignal;
  end(outcome: CallOutcome): Promise<void>;
  isOver: boolean;
}

/** A schedule whose calls the test ends. */
function play(peers: Peer[], random = () => 0.5) {
  const clock = manualClock();
  const log = recordingLog();
  const connected = new Set<DashboardId>();
  const calls: PlayedCall[] = [];
  const began = clock.steady();
  const now = (): number => (clock.steady() - began) / seconds;
  const schedule = startConnectBackSchedule({
    ...{ clock, log, random, timing, peers: () => peers },
    isConnected: (id) => connected.has(id),
    call({ dashboardId: id }, signal) {
      return new Promise((resolve) => {
        calls.push({
          ...{ id, at: now(), signal, isOver: false },
          async end(outcome) {
            this.isOver = true;
            resolve(outcome);
            await settled();
          },
        });
      });
    },
  });
  const last = (): PlayedCall => calls.at(-1) ?? assert.fail('there was no call');
  return { schedule, clock, log, connected, calls, peers, now, last };
}

/** Ends each call at once with the next outcome, and returns the seconds between calls. */
async function gaps(outcomes: readonly CallOutcome[], random?: () => number): Promise<number[]> {
  const played = play([peerNamed('dashboard')], random);
  for (const outcome of outcomes) {
    const before = played.calls.length;
    while (played.calls.length === before) played.clock.advance(timing.sweepMs);
    await played.last().end(outcome);
  }
  const before = played.calls.length;
  while (played.calls.length === before) played.clock.advance(timing.sweepMs);
  await Promise.all([played.last().end(failed), played.schedule.stop()]);
  return played.calls.map(({ at }, index) => at - (played.calls[index - 1]?.at ?? 0));
}

test('A peer is called after 300 s of silence, and not before', () => {
  const { calls, clock, now } = play([peerNamed('dashboard')]);
  clock.advance(299_999);
  assert.deepEqual(calls, []);
  clock.advance(1);
  assert.deepEqual([calls.length, now()], [1, 300]);
});

test('Failures and temporary refusals are retried after 300 s, doubling each time up to an hour', async () => {
  const passing = [failed, { kind: 'wrong_key' } as const, refused('probe_failed')];
  const outcomes = [...passing, refused('already_connected'), failed, failed];
  assert.deepEqual(await gaps(outcomes), [300, 300, 600, 1_200, 2_400, 3_600, 3_600]);
});

test('While the dashboard is probing us, calls are retried after 30 s, doubling each time up to 300 s', async () => {
  const outcomes = Array.from({ length: 6 }, () => refused('rebind_in_progress'));
  assert.deepEqual(await gaps(outcomes), [300, 30, 60, 120, 240, 300, 300]);
});

test('A permanent refusal is retried after an hour', async () => {
  for (const reason of ['no_approved_peer', 'bad_endpoint', 'bad_intent', '', 'a word of tomorrow'])
    assert.deepEqual(await gaps([refused(reason), refused(reason)]), [300, 3_600, 3_600], reason);
});

test('The first delay varies randomly by 20 %, so that receivers do not call in step', async () => {
  assert.deepEqual(await gaps([failed, failed], () => 0), [300, 240, 480]);
  assert.deepEqual(await gaps([failed, failed], () => 0.999_999), [300, 360, 720]);
  assert.deepEqual(await gaps([refused('rebind_in_progress')], () => 0.999_999), [300, 60]);
});

test('An acceptance ends the silence and resets the failures before it', async () => {
  assert.deepEqual(await gaps([failed, failed, accepted, failed, failed]), [300, 300, 600, 300, 300, 600]);
});

test('A session ends the call, and its close starts a new silence without failures', async () => {
  const { schedule, calls, clock, connected, last, now } = play([peerNamed('dashboard')]);
  const id = dashboardId('dashboard');
  clock.advance(300_000);
  await last().end(failed);
  clock.advance(300_000);
  assert.equal(calls.length, 2);
  connected.add(id);
  schedule.recordSession(id, true);
  assert.equal(last().signal.aborted, true);
  await last().end(failed);
  clock.advance(7_200_000);
  assert.equal(calls.length, 2, 'no call while the session is open');
  connected.delete(id);
  schedule.recordSession(id, false);
  clock.advance(270_000);
  assert.equal(calls.length, 2);
  clock.advance(30_000);
  assert.equal(calls.length, 3);
  await last().end(failed);
  const before = now();
  clock.advance(300_000);
  assert.deepEqual([calls.length, now() - before], [4, 300], 'the delay has begun anew');
});

test('A cancelled call that has not ended yet prevents another call to its peer', async () => {
  const { schedule, calls, clock, last } = play([peerNamed('dashboard')]);
  clock.advance(300_000);
  schedule.recordSession(dashboardId('dashboard'), true);
  schedule.recordSession(dashboardId('dashboard'), false);
  clock.advance(600_000);
  assert.equal(calls.length, 1);
  await last().end(refused('no_approved_peer'));
  clock.advance(30_000);
  assert.equal(calls.length, 2, 'and what it says counts no more');
});

test('A revoked peer is not called, and a call to it ends', async () => {
  const peers = [peerNamed('revoked-one'), peerNamed('vanished-one'), peerNamed('other-one')];
  const { schedule, calls, clock } = play(peers);
  clock.advance(300_000);
  assert.equal(calls.length, 3);
  peers.shift();
  schedule.forget(dashboardId('revoked-one'));
  peers.shift();
  clock.advance(30_000);
  assert.deepEqual(
    calls.map(({ signal }) => signal.aborted),
    [true, true, false],
  );
  await Promise.all(calls.map((call) => call.end(failed)));
  clock.advance(7_200_000);
  assert.deepEqual([...new Set(calls.slice(3).map(({ id }) => id))], ['other-one']);
});

test('A peer that pairs again starts without failures', async () => {
  const peers = [peerNamed('dashboard')];
  const { schedule, calls, clock, last } = play(peers);
  clock.advance(300_000);
  await last().end(refused('no_approved_peer'));
  const [peer] = peers.splice(0);
  schedule.forget(dashboardId('dashboard'));
  if (peer) peers.push(peer);
  clock.advance(330_000);
  assert.equal(calls.length, 2);
});

test('A peer without a port, without a literal address or with an open session is never called', () => {
  const { calls, clock, connected } = play([
    peerNamed('no-port-1', { connectBackPort: 0 }),
    peerNamed('no-address', { address: '' }),
    peerNamed('by-a-name', { address: 'hass.local' }),
    peerNamed('connected'),
  ]);
  connected.add(dashboardId('connected'));
  clock.advance(86_400_000);
  assert.deepEqual(calls, []);
});

test('Few calls run at once, and the peers that have waited longest are called first', async () => {
  const names = Array.from({ length: maxCalls * 2 }, (_, n) => `dashboard-${n}`);
  const { calls, clock } = play(names.map((name) => peerNamed(name)));
  clock.advance(330_000);
  assert.deepEqual(
    calls.map(({ id }) => id),
    names.slice(0, maxCalls),
  );
  await Promise.all(calls.map((call) => call.end(failed)));
  clock.advance(30_000);
  assert.deepEqual(
    calls.map(({ id }) => id),
    names,
  );
});

test('The operator is warned once at the fifth failure in a row, and each time of a foreign key or an unreachable port', async () => {
  const { clock, log, last, calls } = play([peerNamed('dashboard')]);
  const once = async (outcome: CallOutcome): Promise<void> => {
    const before = calls.length;
    while (calls.length === before) clock.advance(timing.sweepMs);
    await last().end(outcome);
  };
  for (let n = 0; n < 4; n += 1) await once(failed);
  const warnings = (): number => log.entries.filter((entry) => entry.startsWith('warn')).length;
  assert.equal(warnings(), 0);
  await once(failed);
  assert.equal(warnings(), 1);
  for (const outcome of [failed, { kind: 'wrong_key' } as const, refused('probe_failed')])
    await once(outcome);
  assert.equal(warnings(), 3);
});

test('Stopping waits for the running calls, and no call starts afterwards', async () => {
  const { schedule, calls, clock, last } = play([peerNamed('dashboard')]);
  clock.advance(300_000);
  let isStopped = false;
  const stopped = schedule.stop().then(() => (isStopped = true));
  await settled();
  assert.deepEqual([last().signal.aborted, isStopped, clock.waiting], [true, false, 0]);
  await last().end(failed);
  await stopped;
  clock.advance(86_400_000);
  assert.equal(calls.length, 1);
});

const six = Array.from({ length: 6 }, (_, n) => dashboardId(`dashboard-${n}`));
const anyOutcome: fc.Arbitrary<CallOutcome> = fc.oneof(
  fc.constantFrom<CallOutcome>(accepted, failed, { kind: 'wrong_key' }),
  fc
    .constantFrom('rebind_in_progress', 'already_connected', 'probe_failed', 'no_approved_peer', 'tomorrow')
    .map(refused),
);
const anyAct = fc.record({
  act: fc.constantFrom('pass', 'pass', 'pass', 'end', 'end', 'end', 'come', 'go', 'revoke', 'pair'),
  ms: fc.nat(1_200_000),
  which: fc.nat(5),
  outcome: anyOutcome,
});
type Act = typeof anyAct extends fc.Arbitrary<infer T> ? T : never;

/** The shortest and the longest time in seconds from the end of a call to the next. */
function bounds(ended: CallOutcome): readonly [least: number, most: number] {
  if (ended.kind === 'accepted') return [300, 300];
  if (ended.kind !== 'refused') return [240, 3_600];
  if (ended.reason === 'rebind_in_progress') return [24, 300];
  return ['already_connected', 'probe_failed'].includes(ended.reason) ? [240, 3_600] : [3_600, 3_600];
}

/** A schedule with six peers, and a model of its invariants. */
function modelled(random: () => number) {
  const peers = six.map((id) => peerNamed(id));
  const played = play(peers, random);
  const { schedule, clock, connected, calls, now } = played;
  const sweep = timing.sweepMs / seconds;
  /** The earliest and the latest time of the next call, by peer. */
  const waits = new Map(six.map((id) => [id, { from: 300, to: 300 }]));
  const open = (): PlayedCall[] => calls.filter((call) => !call.isOver);
  const isApproved = (id: DashboardId): boolean => peers.some((peer) => peer.dashboardId === id);
  let [checked, fullUntil] = [0, 0];

  function check(): void {
    for (const { id, at } of calls.slice(checked)) {
      const from = waits.get(id)?.from ?? 0;
      assert.ok(at >= from - 0.001, `a call at ${at} s, before ${from} s`);
      assert.ok(isApproved(id) && !connected.has(id), 'a call to one that is not to be called');
      assert.equal(open().filter((call) => call.id === id).length, 1, 'two calls to one peer');
    }
    checked = calls.length;
    assert.ok(open().length <= maxCalls, 'too many calls');
    if (open().length === maxCalls) fullUntil = now();
    for (const { dashboardId: id } of peers) {
      if (connected.has(id) || open().some((call) => call.id === id)) continue;
      const latest = Math.max(fullUntil, waits.get(id)?.to ?? 0) + sweep;
      assert.ok(now() <= latest + 0.001, `no call until ${now()} s, after ${latest} s`);
    }
  }

  async function end(call: PlayedCall, outcome: CallOutcome): Promise<void> {
    const { to = 0, from = 0 } = waits.get(call.id) ?? {};
    const [least, most] = call.signal.aborted ? [from - now(), Math.max(0, to - now())] : bounds(outcome);
    waits.set(call.id, { from: now() + least, to: now() + most });
    if (open().length === maxCalls) fullUntil = now();
    await call.end(outcome);
  }

  function change(act: string, id: DashboardId): void {
    if (act === 'pair' && !isApproved(id)) {
      peers.push(peerNamed(id));
      waits.set(id, { from: now() + 300, to: now() + 300 + sweep });
    }
    if (act === 'pair' || !isApproved(id)) return;
    if (act === 'come') connected.add(id);
    else connected.delete(id);
    if (act === 'revoke') {
      schedule.forget(id);
      peers.splice(
        peers.findIndex((peer) => peer.dashboardId === id),
        1,
      );
    } else {
      schedule.recordSession(id, act === 'come');
      waits.set(id, { from: now() + 300, to: now() + 300 });
    }
    const isCalled = open().some((call) => call.id === id && !call.signal.aborted);
    assert.ok(!isCalled || act === 'go', 'a call goes on');
  }

  return {
    ...played,
    async perform({ act, ms, which, outcome }: Act): Promise<void> {
      if (act === 'pass') {
        // In steps shorter than a sweep, so that each call is checked before the next.
        for (let left = ms; left > 0; left -= 10_000) {
          clock.advance(Math.min(10_000, left));
          check();
        }
      } else if (act === 'end') {
        const call = open()[which];
        if (call) await end(call, outcome);
      } else change(act, six[which] ?? assert.fail());
      check();
    },
    endAll: () => Promise.all(open().map((call) => end(call, failed))),
  };
}

test('In any order of events, no peer has two calls, none with a session has one, and all delays are kept', async () => {
  let calls = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(anyAct, { minLength: 20, maxLength: 80 }),
      fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true })),
      async (acts, chances) => {
        const model = modelled(() => chances.next().value ?? 0);
        for (const act of acts) await model.perform(act);
        await model.endAll();
        await model.schedule.stop();
        assert.equal(model.clock.waiting, 0);
        calls += model.calls.length;
      },
    ),
    { numRuns: 60 },
  );
  assert.ok(calls > 300, `only ${calls} calls`);
});
