/**
 * Pairing, its window and the one-time key, rule by rule, and random histories of both sides. Covers
 * src/peers/pending.ts and src/peers/one-time-key.ts.
 */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';

import * as fc from 'fast-check';

import { ReceiverError } from '../../src/errors.js';
import { silentLog } from '../../src/log.js';
import { dashboardId, type DashboardId } from '../../src/paths/index.js';
import { createOneTimeKey } from '../../src/peers/one-time-key.js';
import {
  createPairingService,
  type PairingCaller,
  type PairingAnswer,
  type PairingService,
  type PairingEvent,
} from '../../src/peers/pairing.js';
import type { PeerTable } from '../../src/peers/peers.js';
import { createPairingWindow, windowMs } from '../../src/peers/pending.js';
import { pinOf } from '../../src/protocol/fingerprint.js';
import { manualClock, type ManualClock } from '../async/manual-clock.js';
import type { Cleanups } from '../support/temp-dir.js';
import { freshPeers } from './fresh-peers.js';
import { defaultOptions } from '../support/options.js';

const { pairingRequests, waitersPerRequest } = defaultOptions.connectionLimits;
const keyA = Buffer.alloc(32, 1);
const keyB = Buffer.alloc(32, 2);
const pinA = pinOf(keyA);
const id = dashboardId('Dashboard-1');

const caller = (changes: Partial<PairingCaller> = {}): PairingCaller => ({
  dashboardId: id,
  publicKey: keyA,
  label: 'Home',
  labelAuto: false,
  friendlyName: 'hass',
  haAddon: false,
  address: '192.0.2.10',
  connectBackPort: 0,
  ...changes,
});

interface Setting {
  readonly pairing: PairingService;
  readonly peers: PeerTable;
  readonly clock: ManualClock;
  readonly events: PairingEvent[];
  readonly types: () => string[];
}

async function setting(t: Cleanups): Promise<Setting> {
  const clock = manualClock();
  const peers = await freshPeers(t, clock);
  const pairing = createPairingService({ ...defaultOptions, peers, clock, log: silentLog });
  const events: PairingEvent[] = [];
  pairing.subscribe((event) => events.push(event));
  return { pairing, peers, clock, events, types: () => events.map(({ type }) => type) };
}

/** The state before the call: an approved row of key A, a pending row of key A, or none. */
type Before = 'nobody' | 'approved' | 'waiting';

async function prepare({ pairing }: Setting, before: Before, isOpen: boolean): Promise<void> {
  if (before !== 'nobody') {
    pairing.window.open('page');
    await pairing.pairRequest(caller());
    if (before === 'approved') await pairing.approve(id, pinA);
    if (!isOpen) pairing.window.close('page');
  } else if (isOpen) pairing.window.open('page');
}

const requests: readonly [
  rule: string,
  before: Before,
  isOpen: boolean,
  Partial<PairingCaller>,
  PairingAnswer,
][] = [
  ['approved with the same key: approved, window or not', 'approved', false, {}, { response: 'approved' }],
  [
    'approved with another key: pin_mismatch, although the window is open',
    'approved',
    true,
    { publicKey: keyB },
    { response: 'rejected', reason: 'pin_mismatch' },
  ],
  ['the window is closed: no_pairing_window', 'nobody', false, {}, { response: 'no_pairing_window' }],
  ['the window is open: pending', 'nobody', true, {}, { response: 'pending' }],
  ['the same key requests again: pending', 'waiting', true, {}, { response: 'pending' }],
  [
    'another key requests a pending id: pin_mismatch',
    'waiting',
    true,
    { publicKey: keyB },
    { response: 'rejected', reason: 'pin_mismatch' },
  ],
  [
    'an id that differs from a pending one in case only: bad_dashboard_id',
    'waiting',
    true,
    { dashboardId: dashboardId('DASHBOARD-1'), publicKey: keyB },
    { response: 'rejected', reason: 'bad_dashboard_id' },
  ],
  [
    'an id that differs from an approved one in case only: bad_dashboard_id',
    'approved',
    true,
    { dashboardId: dashboardId('DASHBOARD-1'), publicKey: keyB },
    { response: 'rejected', reason: 'bad_dashboard_id' },
  ],
  [
    'the same with a closed window: no_pairing_window, as for every stranger',
    'approved',
    false,
    { dashboardId: dashboardId('DASHBOARD-1'), publicKey: keyB },
    { response: 'no_pairing_window' },
  ],
];

suite('pair_request', () => {
  for (const [rule, before, isOpen, changes, answer] of requests) {
    test(rule, async (t) => {
      const set = await setting(t);
      await prepare(set, before, isOpen);
      assert.deepEqual(await set.pairing.pairRequest(caller(changes)), answer);
      if (before === 'waiting') assert.equal(set.pairing.pending()[0]?.pin, pinA, 'the waiting key stays');
    });
  }

  test('An approved peer renews its names and address, and empty values keep the old ones', async (t) => {
    const set = await setting(t);
    await prepare(set, 'approved', false);
    const pairedAt = set.peers.get(id)?.pairedAt;
    await set.pairing.pairRequest(
      caller({ label: 'New\u202e', labelAuto: true, friendlyName: '', haAddon: true, address: '' }),
    );
    const peer = set.peers.get(id);
    assert.deepEqual(
      [peer?.label, peer?.labelAuto, peer?.friendlyName, peer?.haAddon, peer?.address, peer?.pairedAt],
      ['New', true, 'hass', true, '192.0.2.10', pairedAt],
    );
  });

  test('Pending requests are limited, a stranger displaces only its own requests, and a newcomer always gets in', async (t) => {
    const { pairing, types } = await setting(t);
    const from = (host: number, n: number): PairingCaller =>
      caller({ dashboardId: dashboardId(`stranger-${host}-${n}`), address: `192.0.2.${host}` });
    pairing.window.open('page');
    assert.deepEqual(await pairing.pairRequest(caller()), { response: 'pending' });
    for (let n = 0; n < 200; n += 1) {
      assert.deepEqual(await pairing.pairRequest(from(99, n)), { response: 'pending' });
    }
    assert.equal(pairing.pending().length, 1 + pairingRequests / 4);
    assert.equal(types().filter((type) => type === 'withdrawn').length, 200 - pairingRequests / 4);
    for (let host = 100; host < 120; host += 1) {
      for (let n = 0; n < 20; n += 1) await pairing.pairRequest(from(host, n));
    }
    assert.equal(pairing.pending().length, pairingRequests);
    const late = caller({ dashboardId: dashboardId('dashboard-2'), publicKey: keyB, address: '192.0.2.20' });
    assert.deepEqual(await pairing.pairRequest(late), { response: 'pending' });
    const ids = pairing.pending().map(({ dashboardId: each }) => each);
    assert.ok(ids.includes(id) && ids.includes(late.dashboardId), 'both dashboards can be approved');
  });

  test('A displaced request is answered like one that was rejected, and can be made again', async (t) => {
    const { pairing } = await setting(t);
    pairing.window.open('page');
    await pairing.pairRequest(caller());
    const waiting = pairing.pairStatus(caller(), new AbortController().signal);
    for (let n = 0; n < pairingRequests / 4; n += 1) {
      await pairing.pairRequest(caller({ dashboardId: dashboardId(`another-${n}`) }));
    }
    assert.deepEqual(await waiting, { response: 'rejected', reason: 'no_approved_peer' });
    assert.deepEqual(await pairing.pairRequest(caller()), { response: 'pending' });
  });
});

const lookUps: readonly [
  rule: string,
  Before,
  Partial<PairingCaller>,
  link: PairingAnswer,
  status: string,
][] = [
  [
    'unknown: no_approved_peer',
    'nobody',
    {},
    { response: 'rejected', reason: 'no_approved_peer' },
    'rejected',
  ],
  [
    'approved with the same key: ok, and approved for pair_status',
    'approved',
    {},
    { response: 'ok' },
    'approved',
  ],
  [
    'approved with another key: pin_mismatch',
    'approved',
    { publicKey: keyB },
    { response: 'rejected', reason: 'pin_mismatch' },
    'rejected',
  ],
  [
    'pending with the same key: pending_not_approved, and pair_status waits',
    'waiting',
    {},
    { response: 'pending', reason: 'pending_not_approved' },
    'waits',
  ],
  [
    'pending with another key: pin_mismatch',
    'waiting',
    { publicKey: keyB },
    { response: 'rejected', reason: 'pin_mismatch' },
    'rejected',
  ],
];

suite('peer_link and pair_status', () => {
  for (const [rule, before, changes, link, status] of lookUps) {
    test(rule, async (t) => {
      const set = await setting(t);
      await prepare(set, before, true);
      assert.deepEqual(set.pairing.peerLink(caller(changes)), link);
      const leaving = new AbortController();
      const answer = set.pairing.pairStatus(caller(changes), leaving.signal);
      const first = await Promise.race([answer, new Promise((resolve) => setImmediate(resolve, 'waits'))]);
      assert.equal(typeof first === 'string' ? first : (first as PairingAnswer).response, status);
      leaving.abort();
      if (status === 'waits') assert.equal(await answer, undefined);
    });
  }

  const endings: readonly [rule: string, end: (set: Setting) => unknown, PairingAnswer][] = [
    ['approve answers approved', ({ pairing }) => pairing.approve(id, pinA), { response: 'approved' }],
    [
      'reject answers no_approved_peer',
      ({ pairing }) => pairing.reject(id),
      { response: 'rejected', reason: 'no_approved_peer' },
    ],
    [
      'the end of the window answers no_approved_peer',
      ({ clock }) => clock.advance(windowMs),
      { response: 'rejected', reason: 'no_approved_peer' },
    ],
    [
      'shutdown answers no_approved_peer',
      ({ pairing }) => pairing.close(),
      { response: 'rejected', reason: 'no_approved_peer' },
    ],
  ];
  for (const [rule, end, expected] of endings) {
    test(`A waiting pair_status is answered once: ${rule}`, async (t) => {
      const set = await setting(t);
      await prepare(set, 'waiting', true);
      const answers = [1, 2].map(() => set.pairing.pairStatus(caller(), new AbortController().signal));
      await end(set);
      assert.deepEqual(await Promise.all(answers), [expected, expected]);
      assert.deepEqual(set.pairing.pending(), []);
    });
  }

  test('When too many connections wait for a row, the oldest is released', async (t) => {
    const set = await setting(t);
    await prepare(set, 'waiting', true);
    const never = new AbortController().signal;
    const answers = Array.from({ length: waitersPerRequest + 1 }, () =>
      set.pairing.pairStatus(caller(), never),
    );
    assert.equal(await answers[0], undefined);
    set.pairing.reject(id);
    assert.equal((await Promise.all(answers.slice(1))).length, waitersPerRequest);
  });
});

suite('The operator', () => {
  test('Approving requires the pin that was shown', async (t) => {
    const set = await setting(t);
    await prepare(set, 'waiting', true);
    await assert.rejects(set.pairing.approve(id, pinOf(keyB)), { code: 'PAIRING', message: /fingerprint/ });
    assert.equal(set.peers.get(id), undefined);
    assert.equal((await set.pairing.approve(id, pinA)).pin, pinA);
    assert.deepEqual(set.types(), ['window', 'requested', 'approved']);
  });

  test('Approving twice and approving an unknown request have different errors', async (t) => {
    const set = await setting(t);
    await assert.rejects(set.pairing.approve(id, pinA), { code: 'PAIRING', message: /no such/ });
    await prepare(set, 'waiting', true);
    const [first, second] = await Promise.allSettled([
      set.pairing.approve(id, pinA),
      set.pairing.approve(id, pinA),
    ]);
    assert.equal(first.status, 'fulfilled');
    assert.match(String(second.status === 'rejected' && second.reason), /already approved/);
    await assert.rejects(set.pairing.approve(id, pinA), { code: 'PAIRING', message: /already approved/ });
  });

  test('A window that closes during the write of an approval does not undo it', async (t) => {
    const set = await setting(t);
    await prepare(set, 'waiting', true);
    const status = set.pairing.pairStatus(caller(), new AbortController().signal);
    const approval = set.pairing.approve(id, pinA);
    set.pairing.window.closeAll();
    assert.equal(set.pairing.reject(id), false);
    await approval;
    assert.deepEqual(await status, { response: 'approved' });
    assert.deepEqual(set.pairing.pending(), []);
  });

  test('Revoking takes effect at once and is announced before it is on disk', async (t) => {
    const set = await setting(t);
    await prepare(set, 'approved', true);
    const revoking = set.pairing.revoke(id);
    assert.deepEqual(set.pairing.peerLink(caller()), { response: 'rejected', reason: 'no_approved_peer' });
    assert.deepEqual(set.events.at(-1), { type: 'revoked', dashboardId: id });
    assert.equal(await revoking, true);
    assert.equal(await set.pairing.revoke(id), false);
  });

  test('A listener that throws does not undo a decision', async (t) => {
    const set = await setting(t);
    set.pairing.subscribe(() => {
      throw new Error('a broken panel');
    });
    await prepare(set, 'approved', true);
    assert.equal(set.peers.list().length, 1);
  });
});

suite('The pairing window', () => {
  function openWindow() {
    const clock = manualClock();
    const states: boolean[] = [];
    const window = createPairingWindow(clock, () => states.push(window.isOpen()));
    return { clock, window, states };
  }

  test('It closes by itself after 300 s, with one event, and leaves no timer', () => {
    const { clock, window, states } = openWindow();
    window.open('a');
    clock.advance(299_999);
    assert.equal(window.isOpen(), true);
    assert.equal(window.closesInMs(), 1);
    clock.advance(1);
    assert.deepEqual([window.isOpen(), states, clock.waiting], [false, [true, false], 0]);
  });

  test('Extending counts from now', () => {
    const { clock, window, states } = openWindow();
    window.open('a');
    clock.advance(200_000);
    window.open('a');
    clock.advance(200_000);
    assert.equal(window.isOpen(), true);
    clock.advance(100_000);
    assert.deepEqual(states, [true, true, false]);
  });

  test("One client's close does not close the window of another", () => {
    const { clock, window, states } = openWindow();
    window.open('a');
    clock.advance(100_000);
    window.open('b');
    window.close('a');
    window.close('a');
    assert.equal(window.isOpen(), true);
    window.close('b');
    assert.deepEqual([states, clock.waiting], [[true, true, false], 0]);
  });

  test('When the longest share ends, the next longest decides', () => {
    const { clock, window } = openWindow();
    window.open('long', 900_000);
    window.open('short');
    window.close('long');
    assert.equal(window.closesInMs(), 300_000);
    clock.advance(300_000);
    assert.equal(window.isOpen(), false);
  });

  test('A timer of a closed window does not affect the next window', () => {
    const { clock, window } = openWindow();
    window.open('a');
    clock.advance(200_000);
    window.close('a');
    window.open('a');
    clock.advance(299_000);
    assert.equal(window.isOpen(), true);
  });
});

/** A table that cannot be saved as long as `fails` is set. */
async function unsaved(t: Cleanups): Promise<Setting & { fails: boolean }> {
  const clock = manualClock();
  const peers = await freshPeers(t, clock);
  const add: PeerTable['add'] = async (peer) => {
    if (set.fails) throw new ReceiverError('STORAGE', 'the disk is full');
    return peers.add(peer);
  };
  const pairing = createPairingService({
    ...defaultOptions,
    ...{ peers: { ...peers, add }, clock, log: silentLog },
  });
  const events: PairingEvent[] = [];
  pairing.subscribe((event) => events.push(event));
  const set = { pairing, peers, clock, events, types: () => events.map(({ type }) => type), fails: true };
  return set;
}

test('An approval that cannot be saved can be repeated, even after the window has closed', async (t) => {
  const set = await unsaved(t);
  set.pairing.window.open('page');
  await set.pairing.pairRequest(caller());
  await assert.rejects(set.pairing.approve(id, pinA), { code: 'STORAGE' });
  set.pairing.window.closeAll();
  await assert.rejects(set.pairing.approve(id, pinA), { code: 'STORAGE' });
  assert.deepEqual(set.pairing.peerLink(caller()), { response: 'pending', reason: 'pending_not_approved' });
  set.fails = false;
  assert.equal((await set.pairing.approve(id, pinA)).pin, pinA);
  assert.deepEqual(set.pairing.pending(), []);
});

test('A request whose approval could not be saved can be rejected', async (t) => {
  const set = await unsaved(t);
  set.pairing.window.open('page');
  await set.pairing.pairRequest(caller());
  await assert.rejects(set.pairing.approve(id, pinA), { code: 'STORAGE' });
  set.pairing.window.closeAll();
  assert.equal(set.pairing.reject(id), true);
  assert.deepEqual(set.pairing.pending(), []);
});

test('A revocation that could not be saved is repeated by the same call', async (t) => {
  const set = await setting(t);
  await prepare(set, 'approved', false);
  let fails = true;
  const remove: PeerTable['remove'] = async (each) => {
    const isRemoved = await set.peers.remove(each);
    if (fails) throw new ReceiverError('STORAGE', 'the disk is full');
    return isRemoved || each === id;
  };
  const pairing = createPairingService({
    ...defaultOptions,
    ...{ peers: { ...set.peers, remove }, clock: set.clock, log: silentLog },
  });
  await assert.rejects(pairing.revoke(id), { code: 'STORAGE' });
  fails = false;
  assert.equal(await pairing.revoke(id), true);
});

suite('The one-time key', () => {
  test('It is shown once, in four groups of unambiguous letters and digits', () => {
    const shown: string[] = [];
    createOneTimeKey(manualClock(), (key) => shown.push(key));
    assert.equal(shown.length, 1);
    assert.match(shown[0] ?? '', /^([A-HJKMNP-TV-Z2-9]{4}-){3}[A-HJKMNP-TV-Z2-9]{4}$/);
  });

  const forms: readonly [rule: string, present: (key: string) => string, matches: boolean][] = [
    ['as printed', (key) => key, true],
    ['in lower case with other separators', (key) => ` ${key.toLowerCase().replaceAll('-', ' . ')}\n`, true],
    ['nothing', () => '', false],
    ['one letter short', (key) => key.slice(1), false],
    ['with more than 256 characters', (key) => key.padEnd(257, '-'), false],
    ['with exactly 256 characters', (key) => key.padEnd(256, '-'), true],
  ];
  for (const [rule, present, matches] of forms) {
    test(`It ${matches ? 'matches' : 'does not match'} ${rule}`, () => {
      let key = '';
      const oneTime = createOneTimeKey(manualClock(), (text) => (key = text));
      assert.equal(oneTime.spend(present(key)), matches);
      assert.equal(oneTime.isArmed(), !matches, 'a wrong key does not disarm');
      assert.equal(oneTime.spend(key), !matches, 'a right key is spent');
    });
  }

  async function armed(t: Cleanups) {
    const set = await setting(t);
    let key = '';
    set.pairing.armOneTimeKey((text) => (key = text));
    return { ...set, pairingKey: key };
  }

  test('The right key approves at once and durably, closes the window, and works only once', async (t) => {
    const { pairing, peers, pairingKey } = await armed(t);
    const other = caller({ dashboardId: dashboardId('dashboard-2'), publicKey: keyB, pairingKey });
    const answers = await Promise.all([
      pairing.pairRequest(caller({ pairingKey })),
      pairing.pairRequest(other),
    ]);
    assert.deepEqual(answers[0], { response: 'approved' });
    assert.notEqual(answers[1]?.response, 'approved');
    assert.equal(pairing.window.isOpen(), false);
    assert.deepEqual([peers.list().map((peer) => peer.dashboardId), pairing.pending()], [[id], []]);
    assert.deepEqual(await pairing.pairRequest(other), { response: 'no_pairing_window' });
    assert.throws(() => pairing.armOneTimeKey(() => {}), { code: 'STATE' });
  });

  test('A wrong or missing key gets the answer of a closed window, creates no request and does not use up the key', async (t) => {
    const { pairing, pairingKey } = await armed(t);
    for (const wrong of [{}, { pairingKey: 'ABCD' }]) {
      assert.deepEqual(await pairing.pairRequest(caller(wrong)), { response: 'no_pairing_window' });
    }
    assert.deepEqual(pairing.pending(), []);
    assert.deepEqual(await pairing.pairRequest(caller({ pairingKey })), { response: 'approved' });
  });

  test('If an operator opens the window beside the key, requests without the key wait, and the key still pairs', async (t) => {
    const { pairing, peers, pairingKey } = await armed(t);
    const stranger = caller({ dashboardId: dashboardId('dashboard-2'), publicKey: keyB });
    const wrong = { ...stranger, pairingKey: 'ABCD' };
    pairing.window.open('page');
    assert.deepEqual(await pairing.pairRequest(stranger), { response: 'pending' });
    assert.deepEqual(await pairing.pairRequest(wrong), { response: 'no_pairing_window' });
    assert.deepEqual(await pairing.pairRequest(caller({ pairingKey })), { response: 'approved' });
    assert.equal(pairing.window.isOpen(), true, "the operator's share stays");
    assert.deepEqual(await pairing.pairRequest(wrong), { response: 'pending' }, 'the key is spent');
    await pairing.approve(stranger.dashboardId, pinOf(keyB));
    assert.equal(peers.list().length, 2);
    pairing.window.close('page');
    assert.equal(pairing.window.isOpen(), false);
  });

  test("The end of an operator's share leaves the key, and only the key, to pair", async (t) => {
    const { pairing, pairingKey, clock } = await armed(t);
    pairing.window.open('page');
    clock.advance(windowMs);
    assert.deepEqual(await pairing.pairRequest(caller()), { response: 'no_pairing_window' });
    assert.deepEqual(await pairing.pairRequest(caller({ pairingKey })), { response: 'approved' });
  });

  test('A key whose pairing cannot be saved stays valid, for one pairing', async (t) => {
    const set = await unsaved(t);
    let pairingKey = '';
    set.pairing.armOneTimeKey((text) => (pairingKey = text));
    const other = caller({ dashboardId: dashboardId('dashboard-2'), publicKey: keyB, pairingKey });
    const attempt = set.pairing.pairRequest(caller({ pairingKey }));
    assert.deepEqual(await set.pairing.pairRequest(other), { response: 'no_pairing_window' }, 'meanwhile');
    await assert.rejects(attempt, { code: 'STORAGE' });
    set.fails = false;
    assert.deepEqual(await set.pairing.pairRequest(caller({ pairingKey })), { response: 'approved' });
    assert.deepEqual(await set.pairing.pairRequest(other), { response: 'no_pairing_window' });
    assert.equal(set.peers.list().length, 1);
  });

  test('Closing the window for all clients deletes the key', async (t) => {
    const { pairing, pairingKey } = await armed(t);
    pairing.window.closeAll();
    pairing.window.open('page');
    assert.deepEqual(await pairing.pairRequest(caller({ pairingKey })), { response: 'pending' });
  });

  test('After 900 s the window closes and the key is deleted', async (t) => {
    const { pairing, clock, pairingKey, types } = await armed(t);
    clock.advance(899_999);
    assert.equal(pairing.window.isOpen(), true);
    clock.advance(1);
    assert.deepEqual(types(), ['window', 'window']);
    pairing.window.open('page');
    assert.deepEqual(await pairing.pairRequest(caller({ pairingKey })), { response: 'pending' });
  });
});

interface Operation {
  readonly kind: string;
  readonly id: DashboardId;
  readonly publicKey: Buffer;
}

test('For any actions of strangers and operators, no row changes its key, and only shown pins are approved', async () => {
  const ids = ['dashboard-1', 'DASHBOARD-1', 'dashboard-2'].map((text) => dashboardId(text));
  const operation: fc.Arbitrary<Operation> = fc.record({
    kind: fc.constantFrom(
      'request',
      'link',
      'status',
      'approve',
      'reject',
      'revoke',
      'open',
      'close',
      'wait',
    ),
    id: fc.constantFrom(...ids),
    publicKey: fc.constantFrom(keyA, keyB),
  });
  const check = async (operations: readonly Operation[], settled: boolean): Promise<void> => {
    const cleanups: (() => Promise<void> | void)[] = [];
    const { pairing, peers, clock } = await setting({ after: (cleanup) => cleanups.push(cleanup) });
    const approved = new Set<string>();
    const leaving = new AbortController();
    const running: Promise<unknown>[] = [];
    try {
      for (const { kind, id: dashboard, publicKey } of operations) {
        const pin = pinOf(publicKey);
        const who = caller({ dashboardId: dashboard, publicKey });
        const before = pairing.pending().find((row) => row.dashboardId === dashboard);
        const wasPeer = peers.get(dashboard);
        const begun = running.length;
        if (kind === 'request') running.push(pairing.pairRequest(who));
        if (kind === 'status') running.push(pairing.pairStatus(who, leaving.signal));
        if (kind === 'approve') {
          if (before?.pin === pin) approved.add(`${dashboard} ${pin}`);
          running.push(pairing.approve(dashboard, pin).catch(() => {}));
        }
        if (kind === 'reject') pairing.reject(dashboard);
        if (kind === 'revoke') running.push(pairing.revoke(dashboard));
        if (kind === 'open') pairing.window.open('page');
        if (kind === 'close') pairing.window.close('page');
        if (kind === 'wait') clock.advance(100_000);
        // A later action answers the status.
        if (settled && kind !== 'status') await Promise.all(running.slice(begun));
        const after = pairing.pending().find((row) => row.dashboardId === dashboard);
        if (before && after) assert.equal(after.pin, before.pin);
        const isPeer = peers.get(dashboard);
        if (wasPeer && isPeer) assert.equal(isPeer.pin, wasPeer.pin);
        const isLinked = pairing.peerLink(who).response === 'ok';
        if (isLinked) assert.ok(approved.has(`${dashboard} ${pin}`));
        const folded = peers.list().map((peer) => peer.dashboardId.toLowerCase());
        assert.equal(new Set(folded).size, folded.length);
      }
      pairing.close();
      leaving.abort();
      await Promise.all(running);
      assert.deepEqual([pairing.pending(), clock.waiting], [[], 0]);
    } finally {
      for (const cleanup of cleanups) await cleanup();
    }
  };
  await fc.assert(fc.asyncProperty(fc.array(operation, { maxLength: 25 }), fc.boolean(), check), {
    numRuns: 60,
  });
});
