/**
 * The peer server from a stranger's first byte to its own close: answers, sessions, limits, closing. Covers
 * src/server/sessions.ts.
 */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';

import { createStrangerPool } from '../../src/server/connection-limits.js';
import { initiate } from '../../src/protocol/handshake.js';
import { memoryTransportPair, type MemoryTransport } from '../../src/protocol/transport.js';
import type { Intent } from '../../src/protocol/constants.js';
import type { SessionEvent } from '../../src/server/sessions.js';
import { dashboardId } from '../../src/paths/index.js';
import { systemClock } from '../../src/async/clock.js';
import { identityOf } from '../../src/peers/identity.js';
import { headerFrame, upload } from './bundle-frames.js';
import {
  linkSetting,
  offloaderId,
  offloaderIdentity,
  settled,
  until,
  type Client,
  type Setting,
} from './setting.js';
import { defaultOptions } from '../support/options.js';

const otherIdentity = identityOf(Buffer.alloc(32, 11));
const otherId = dashboardId('another-dashboard');
const hello = { dashboardId: offloaderId, label: 'Home', friendlyName: 'hass' };

type Prepare = (setting: Setting) => unknown;
const nothing: Prepare = () => {};
const approved: Prepare = ({ approve }) => approve();
const foreignKey: Prepare = ({ approve }) => approve(offloaderId, otherIdentity);
const windowOpen: Prepare = ({ pairing }) => pairing.window.open('page');
const waiting: Prepare = async (setting) => {
  setting.pairing.window.open('page');
  await setting.connect('pair_request', hello);
};

const answers: readonly [
  rule: string,
  Intent,
  Prepare,
  changes: object,
  response: string,
  reason?: string,
][] = [
  ['preview: always ok', 'preview', nothing, { dashboardId: '' }, 'ok'],
  ['an unknown intent: bad_intent', 'dance' as Intent, approved, {}, 'rejected', 'bad_intent'],
  [
    'connect_back: no_approved_peer, without checking the id',
    'connect_back',
    nothing,
    { dashboardId: '' },
    'rejected',
    'no_approved_peer',
  ],
  ['connect_back, approved', 'connect_back', approved, {}, 'rejected', 'no_approved_peer'],
  ['pair_request, closed window', 'pair_request', nothing, {}, 'no_pairing_window'],
  ['pair_request, open window', 'pair_request', windowOpen, {}, 'pending'],
  ['pair_request, approved', 'pair_request', approved, {}, 'approved'],
  ['pair_request, another key', 'pair_request', foreignKey, {}, 'rejected', 'pin_mismatch'],
  [
    'pair_request, bad id',
    'pair_request',
    windowOpen,
    { dashboardId: '../../../../etc' },
    'rejected',
    'bad_dashboard_id',
  ],
  ['pair_status, nobody', 'pair_status', nothing, {}, 'rejected', 'no_approved_peer'],
  ['pair_status, approved', 'pair_status', approved, {}, 'approved'],
  ['pair_status, bad id', 'pair_status', nothing, { dashboardId: 'short' }, 'rejected', 'bad_dashboard_id'],
  ['peer_link, nobody', 'peer_link', nothing, {}, 'rejected', 'no_approved_peer'],
  ['peer_link, waiting', 'peer_link', waiting, {}, 'pending', 'pending_not_approved'],
  ['peer_link, another key', 'peer_link', foreignKey, {}, 'rejected', 'pin_mismatch'],
  [
    'peer_link, bad id',
    'peer_link',
    approved,
    { dashboardId: `${offloaderId}=` },
    'rejected',
    'bad_dashboard_id',
  ],
];

suite('Intents', () => {
  for (const [rule, intent, prepare, changes, response, reason] of answers) {
    test(`${rule}: ${reason ?? response}, and the connection closes`, async (t) => {
      const setting = await linkSetting(t);
      await prepare(setting);
      const client = await setting.connect(intent, { ...hello, ...changes });
      assert.deepEqual([client.answer.intent_response, client.answer.reason], [response, reason]);
      await until(() => client.isClosed(), 'the end of the connection');
      assert.deepEqual(client.frames, []);
      assert.equal(setting.isConnected(), false);
    });
  }

  test("Every answer has the version and the receiver's name, and claims no ability that is missing", async (t) => {
    const { connect } = await linkSetting(t);
    const { answer } = await connect('preview');
    assert.deepEqual(answer, {
      intent_response: 'ok',
      esphome_version: '2026.10.0',
      auto_provision_supported: false,
      reset_build_env_supported: false,
      friendly_name: 'buildbox',
      ha_addon: false,
    });
  });

  test('A receiver that installs other versions on demand announces it', async (t) => {
    const { connect } = await linkSetting(t, { canProvision: async () => true });
    assert.equal((await connect('preview')).answer.auto_provision_supported, true);
    assert.equal((await connect('pair_request', hello)).answer.auto_provision_supported, true);
  });

  test('Only a preview announces that a pairing key is needed', async (t) => {
    const about = { friendlyName: 'buildbox', haAddon: true, pairingByKey: true };
    const { connect } = await linkSetting(t, { about });
    assert.equal((await connect('preview')).answer.requires_pairing_key, true);
    const refused = await connect('pair_request', hello);
    assert.deepEqual([refused.answer.requires_pairing_key, refused.answer.ha_addon], [undefined, true]);
  });

  test('A receiver that does not know its ESPHome version still answers', async (t) => {
    const esphomeVersion = () => Promise.reject(new Error('no such program'));
    const { connect } = await linkSetting(t, { esphomeVersion });
    assert.deepEqual((await connect('preview')).answer.esphome_version, '');
  });

  test('The printed key travels inside the handshake and pairs', async (t) => {
    const { pairing, connect, peers } = await linkSetting(t);
    let key = '';
    pairing.armOneTimeKey((text) => (key = text));
    assert.equal((await connect('pair_request', hello)).answer.intent_response, 'no_pairing_window');
    const right = await connect('pair_request', { ...hello, pairingKey: key.toLowerCase() });
    assert.equal(right.answer.intent_response, 'approved');
    assert.deepEqual(peers.get(offloaderId)?.pin, offloaderIdentity.pin);
  });

  test('A parked pair_status gets the approval, and the session can open', async (t) => {
    const setting = await linkSetting(t);
    await waiting(setting);
    const parked = setting.connect('pair_status', hello);
    await settled();
    const [request] = setting.pairing.pending();
    await setting.pairing.approve(offloaderId, request?.pin ?? '');
    assert.equal((await parked).answer.intent_response, 'approved');
    await setting.session();
  });

  test('A parked pair_status whose socket closes is removed', async (t) => {
    const setting = await linkSetting(t);
    await waiting(setting);
    const [mine, theirs] = memoryTransportPair();
    setting.link.accept(theirs);
    const parked = initiate(mine, offloaderIdentity, { intent: 'pair_status', hello });
    await settled();
    mine.destroy();
    await assert.rejects(parked, { code: 'PROTOCOL' });
    await settled();
    assert.equal(setting.clock.waiting, 1, 'the timer of the window alone');
  });
});

suite('Sessions', () => {
  test("The session begins with the queue status, and the peer's hello is stored", async (t) => {
    const setting = await linkSetting(t);
    await setting.approve();
    const events: string[] = [];
    setting.sessions.subscribe((event) => {
      if (event.type === 'session') events.push(`${event.dashboardId} ${event.connected}`);
    });
    const client = await setting.connect('peer_link', {
      ...hello,
      friendlyName: 'attic',
      haAddon: true,
      connectBackPort: 6056,
    });
    const status = { type: 'queue_status', idle: true, running: false, queue_depth: 0 };
    assert.deepEqual(await client.next('queue_status'), status);
    const peer = setting.peers.get(offloaderId);
    assert.deepEqual(
      [peer?.label, peer?.friendlyName, peer?.haAddon, peer?.address, peer?.connectBackPort],
      ['Home', 'attic', true, '192.0.2.10', 6056],
    );
    client.hangUp();
    await until(() => !setting.isConnected(), 'the end of the session');
    assert.deepEqual(events, [`${offloaderId} true`, `${offloaderId} false`]);
    assert.deepEqual(
      setting.log.entries.filter((entry) => !entry.startsWith('info')),
      [],
    );
  });

  test('A peer that reconnects repeatedly has few uploads in progress, and can start one when they have ended', async (t) => {
    const setting = await linkSetting(t, { maxUploadsPerPeer: 3 });
    setting.intakes.stuck = true;
    let fourth: Client;
    try {
      for (let n = 0; n < 3; n += 1) {
        (await setting.session()).send(headerFrame(Buffer.from('bundle')));
        await settled();
        setting.clock.advance(60_000);
      }
      await until(() => setting.intakes.all.length === 3, 'three uploads');
      fourth = await setting.session();
      fourth.send(headerFrame(Buffer.from('bundle')));
      const refusal = await fourth.next('submit_job_ack');
      assert.deepEqual([refusal.accepted, refusal.reason], [false, 'duplicate_submit']);
      assert.equal(setting.intakes.all.length, 3);
    } finally {
      setting.intakes.stuck = false;
    }
    await settled();
    upload(fourth, Buffer.from('bundle'));
    assert.equal((await fourth.next('submit_job_ack')).accepted, true);
  });

  test('The newest session wins: only the older one is sent superseded, and its close does not remove the newer', async (t) => {
    const setting = await linkSetting(t);
    const older = await setting.session();
    const newer = await setting.session();
    assert.equal((await older.next('terminate')).reason, 'superseded');
    await until(() => older.isClosed(), 'the end of the older');
    await settled();
    assert.equal(setting.isConnected(), true);
    upload(newer, Buffer.from('bundle'));
    assert.equal((await newer.next('job_state_changed')).status, 'queued');
    assert.deepEqual([newer.all('terminate'), older.all('job_state_changed')], [[], []]);
  });

  test('Two clients with one identity replace each other once a minute; in between, the one that answers stays', async (t) => {
    const setting = await linkSetting(t);
    const told: SessionEvent[] = [];
    setting.sessions.subscribe((event) => void told.push(event));
    const original = await setting.session();
    const clone = await setting.session();
    assert.equal((await original.next('terminate')).reason, 'superseded');
    const again = await setting.connect('peer_link', { dashboardId: offloaderId });
    clone.send({ type: 'pong', nonce: (await clone.next('ping')).nonce });
    assert.equal((await again.next('terminate')).reason, 'identity_in_use');
    await until(() => again.isClosed(), 'the end of the one who came back');
    assert.deepEqual(told.at(-1), {
      ...{ type: 'clones', dashboardId: offloaderId, addresses: ['192.0.2.10', '192.0.2.10'] },
    });
    assert.deepEqual([clone.isClosed(), clone.all('terminate')], [false, []]);

    setting.clock.advance(60_000);
    await setting.session();
    assert.equal((await clone.next('terminate')).reason, 'superseded');
  });

  test('A peer that lost two connections within a minute is accepted as soon as the older one does not answer', async (t) => {
    const setting = await linkSetting(t);
    await setting.session();
    const second = await setting.session();
    second.freeze();
    const third = await setting.connect('peer_link', { dashboardId: offloaderId });
    await settled();
    assert.deepEqual(third.all('queue_status'), []);
    setting.clock.advance(5_000);
    await third.next('queue_status');
    assert.deepEqual(third.all('terminate'), []);
    second.transport.destroy();
  });

  test('A peer whose connection has closed is accepted again at once, however often', async (t) => {
    const setting = await linkSetting(t);
    await setting.session();
    for (let n = 0; n < 5; n += 1) {
      const client = await setting.session();
      client.transport.destroy();
      await until(() => !setting.isConnected(), 'the end of the session');
    }
  });

  test('A peer that is revoked while the current session is pinged gets no session', async (t) => {
    const setting = await linkSetting(t);
    await setting.session();
    const second = await setting.session();
    second.freeze();
    const third = await setting.connect('peer_link', { dashboardId: offloaderId });
    await setting.pairing.revoke(offloaderId);
    await until(() => third.isClosed(), 'the end of the newcomer');
    assert.deepEqual([third.frames, setting.isConnected()], [[], false]);
    second.transport.destroy();
  });

  test('Two peers with the same job id get frames of their own jobs only; both get the queue status', async (t) => {
    const setting = await linkSetting(t);
    const mine = await setting.session();
    await setting.approve(otherId, otherIdentity);
    const other = await setting.connect('peer_link', { dashboardId: otherId }, otherIdentity);
    await other.next('queue_status');
    upload(mine, Buffer.from('bundle'));
    await mine.next('job_state_changed');
    other.send({ type: 'cancel_job', job_id: '4be1c09a77d2' });
    other.send({ type: 'download_artifacts', job_id: '4be1c09a77d2' });
    assert.equal((await other.next('artifacts_end')).reason, 'unknown_job');
    const status = { idle: false, running: true, queue_depth: 2 };
    setting.jobs.emit({ type: 'queue', status: { idle: false, running: true, queueDepth: 2, freeSlots: 0 } });
    for (const client of [mine, other]) {
      assert.deepEqual(await client.next('queue_status'), { type: 'queue_status', ...status });
    }
    assert.equal(setting.jobs.records()[0]?.state, 'queued');
    assert.deepEqual(other.all('job_state_changed'), []);
  });

  test('Jobs continue while their peer is absent, and later frames go to its next session', async (t) => {
    const setting = await linkSetting(t);
    const first = await setting.session();
    upload(first, Buffer.from('bundle'));
    await first.next('job_state_changed');
    first.transport.destroy();
    await until(() => !setting.isConnected(), 'the end of the session');
    setting.jobs.move({ state: 'running' });
    const second = await setting.session();
    setting.jobs.move({ state: 'completed' });
    assert.equal((await second.next('job_state_changed')).status, 'completed');
  });

  test('A revoked peer loses its session at once, and is refused when it reconnects', async (t) => {
    const setting = await linkSetting(t);
    const client = await setting.session();
    await setting.pairing.revoke(offloaderId);
    await until(() => client.isClosed(), 'the end of the session');
    const again = await setting.connect('peer_link', hello);
    assert.equal(again.answer.reason, 'no_approved_peer');
  });

  test('A peer that is revoked between the look-up and the answer gets no session', async (t) => {
    let setting: Setting | undefined;
    const revoking = {
      friendlyName: 'buildbox',
      haAddon: false,
      get pairingByKey() {
        return false;
      },
    };
    setting = await linkSetting(t, { about: revoking });
    await setting.approve();
    const { pairing } = setting;
    Object.defineProperty(revoking, 'friendlyName', {
      get: () => {
        void pairing.revoke(offloaderId);
        return 'buildbox';
      },
    });
    const client = await setting.connect('peer_link', hello);
    assert.equal(client.answer.intent_response, 'ok');
    await until(() => client.isClosed(), 'the end of the connection');
    assert.deepEqual([client.frames, setting.isConnected()], [[], false]);
  });
});

suite('Before authentication', () => {
  /** A stranger that connects and stays silent. */
  function silent(
    setting: Setting,
    address: string,
  ): { readonly transport: MemoryTransport; closed: boolean; messages: number } {
    const [transport, theirs] = memoryTransportPair(address);
    const stranger = { transport, closed: false, messages: 0 };
    transport.start({
      message: () => void (stranger.messages += 1),
      text: () => void (stranger.messages += 1),
      closed: () => void (stranger.closed = true),
    });
    setting.link.accept(theirs);
    return stranger;
  }
  const connectionLimits = { ...defaultOptions.connectionLimits, strangers: 3, strangersPerAddress: 2 };

  test('Silent strangers are limited in total and per address, and the one that is silent longest is evicted', async (t) => {
    const setting = await linkSetting(t, { connectionLimits });
    const strangers = ['a', 'a', 'a', 'b', 'c'].map((address) => silent(setting, address));
    await settled();
    assert.deepEqual(
      strangers.map(({ closed }) => closed),
      [true, true, false, false, false],
    );
  });

  test('Many silent strangers do not keep an approved peer out', async (t) => {
    const setting = await linkSetting(t, { connectionLimits });
    const strangers = ['a', 'b', 'c', 'd', 'e', 'f'].map((address) => silent(setting, address));
    let isIn = false;
    void setting.session().then(() => (isIn = true));
    await until(() => isIn, 'the session of the approved peer');
    assert.ok(strangers.filter(({ closed }) => !closed).length <= connectionLimits.strangers);
    assert.ok(setting.isConnected());
  });

  test('An open session does not count as a stranger', async (t) => {
    const setting = await linkSetting(t, { connectionLimits: { ...connectionLimits, strangers: 1 } });
    await setting.session();
    const stranger = silent(setting, 'a');
    await settled();
    assert.equal(stranger.closed, false);
  });

  test('A stranger that stays silent for too long is closed without a frame', async (t) => {
    const setting = await linkSetting(t, {
      connectionLimits: { ...connectionLimits, handshakeTimeoutMs: 20 },
    });
    const stranger = silent(setting, 'a');
    await until(() => stranger.closed, 'the end of the connection');
    assert.equal(stranger.messages, 0, 'nothing was sent to it');
  });

  test('The handshakes of one network are limited, and the excess is dropped before it costs anything', async (t) => {
    const setting = await linkSetting(t, {
      connectionLimits: { ...connectionLimits, strangersPerAddress: 99, strangers: 99 },
    });
    await settled();
    const crowd = Array.from({ length: 81 }, () => silent(setting, 'a'));
    const other = silent(setting, 'b');
    await settled();
    assert.deepEqual(
      [...crowd, other].flatMap(({ closed }, n) => (closed ? [n] : [])),
      [80],
    );
    setting.clock.advance(1_000);
    const later = Array.from({ length: 21 }, () => silent(setting, 'a'));
    await settled();
    assert.deepEqual(
      later.flatMap(({ closed }, n) => (closed ? [n] : [])),
      [20],
    );
  });

  test('Releasing twice frees one place', () => {
    const gate = createStrangerPool(connectionLimits, systemClock);
    const evicted: string[] = [];
    const enter = (name: string) => gate.enter('a', () => evicted.push(name));
    const leave = enter('first') ?? assert.fail();
    enter('second');
    leave();
    leave();
    enter('third');
    assert.deepEqual(evicted, []);
    enter('fourth');
    assert.deepEqual(evicted, ['second']);
  });
});

suite('Closing', () => {
  test('Peers are sent server_shutting_down, waiters are answered, strangers are closed, and nothing is left', async (t) => {
    const setting = await linkSetting(t);
    const client = await setting.session();
    setting.pairing.window.open('page');
    const asking = { ...hello, dashboardId: otherId };
    await setting.connect('pair_request', asking, otherIdentity);
    const parked = setting.connect('pair_status', asking, otherIdentity);
    const [stranger, theirs] = memoryTransportPair();
    let strangerClosed = false;
    stranger.start({ message() {}, text() {}, closed: () => (strangerClosed = true) });
    setting.link.accept(theirs);
    await settled();
    await setting.link.close();
    assert.equal((await client.next('terminate')).reason, 'server_shutting_down');
    assert.equal((await parked).answer.reason, 'no_approved_peer');
    await until(() => strangerClosed && client.isClosed(), 'the end of all');
    assert.deepEqual([setting.clock.waiting, setting.jobs.listening], [0, 0]);
    const [late, lateEnd] = memoryTransportPair();
    let lateClosed = false;
    late.start({ message() {}, text() {}, closed: () => (lateClosed = true) });
    setting.link.accept(lateEnd);
    await until(() => lateClosed, 'the refusal');
  });

  test('A peer that does not close its end is disconnected after 5 s', async (t) => {
    const setting = await linkSetting(t);
    const client = await setting.session();
    client.freeze();
    const closing = setting.link.close();
    await settled();
    setting.clock.advance(5_000);
    await closing;
    await settled();
    assert.equal(setting.clock.waiting, 0);
  });
});
