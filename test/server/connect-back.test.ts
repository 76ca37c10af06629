/** One connect-back over a connection in memory: every answer, a foreign key, and every way to fail. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ReceiverError } from '../../src/errors.js';
import { isCallable } from '../../src/server/connect-back-schedule.js';
import { connectBack, type CallOptions } from '../../src/server/connect-back.js';
import { closeGraceMs } from '../../src/protocol/heartbeat.js';
import { respond, type Responded } from '../../src/protocol/handshake.js';
import { memoryTransportPair, type MemoryTransport } from '../../src/protocol/transport.js';
import { createResponder } from '../../src/protocol/noise.js';
import { identityOf } from '../../src/peers/identity.js';
import { manualClock } from '../async/manual-clock.js';
import { answerOf } from './played-dashboard.js';
import { receiverIdentity, settled, until } from './setting.js';

const dashboard = identityOf(Buffer.alloc(32, 9));
const stranger = identityOf(Buffer.alloc(32, 11));

/** A call in progress, and the far end of its connection. */
function place(changes: Partial<CallOptions> = {}) {
  const [near, far] = memoryTransportPair();
  const clock = manualClock();
  const hangUp = new AbortController();
  const called = connectBack(() => Promise.resolve(near), {
    ...{ identity: receiverIdentity, expectedPin: dashboard.pin, port: 6123, clock },
    ...{ signal: hangUp.signal, stepTimeoutMs: 5_000 },
    ...changes,
  });
  return { near, far, clock, called, hangUp };
}

/** The messages received at the far end, which answers none. */
function watch(far: MemoryTransport) {
  const messages: Buffer[] = [];
  let isClosed = false;
  far.start({
    message: (data) => messages.push(data),
    text: () => {},
    closed: () => (isClosed = true),
  });
  return { messages, isClosed: () => isClosed };
}

test('The dashboard is told the caller and the port, and nothing else; its ok is an acceptance', async () => {
  const { far, called } = place();
  const responded = await respond(far, dashboard);
  assert.equal(responded.intent, 'connect_back');
  assert.equal(responded.peerPin, receiverIdentity.pin);
  assert.deepEqual(responded.hello, {
    ...{ dashboardId: '', label: '', friendlyName: '', haAddon: false, labelAuto: false },
    ...{ connectBackPort: 0, peerLinkPort: 6123 },
  });
  responded.channel.answer(answerOf('ok'));
  responded.channel.close();
  assert.deepEqual(await called, { kind: 'accepted' });
});

test('Every other answer is a refusal with its reason, whatever the reason contains', async () => {
  const answers: readonly [word: string, reason: string | undefined][] = [
    ...['rebind_in_progress', 'already_connected', 'probe_failed', 'no_approved_peer', 'bad_endpoint'].map(
      (reason): [string, string] => ['rejected', reason],
    ),
    ['rejected', 'bad_intent'],
    ['rejected', undefined],
    ['pending', 'pending_not_approved'],
    ['approved', undefined],
    ['a word of tomorrow', '\u001b[2J'],
  ];
  for (const [word, reason] of answers) {
    const { far, called } = place();
    const { channel } = await respond(far, dashboard);
    channel.answer(answerOf(word, reason));
    assert.deepEqual(await called, { kind: 'refused', reason: reason ?? '' });
    assert.ok(channel.signal.aborted);
  }
});

test('A stranger at the address is told nothing: the third message is never sent', async () => {
  const { far, called } = place();
  const seen = watch(far);
  const noise = createResponder({ staticKey: stranger });
  await until(() => seen.messages.length === 1, 'the first message');
  assert.equal(noise.read(seen.messages[0] as Buffer).toString(), '{"intent":"connect_back"}');
  far.send(noise.write(Buffer.alloc(0)));
  assert.deepEqual(await called, { kind: 'wrong_key' });
  await until(seen.isClosed, 'the end of the connection');
  await settled();
  assert.equal(seen.messages.length, 1);
});

test('Silence at either wait, invalid data, an early close and an oversized answer are failures and end the connection', async () => {
  const silent = place({ stepTimeoutMs: 20 });
  const seen = watch(silent.far);
  assert.equal((await silent.called).kind, 'failed');
  await until(seen.isClosed, 'the end of the connection');

  const mute = place({ stepTimeoutMs: 20 });
  const { channel } = await respond(mute.far, dashboard);
  assert.equal((await mute.called).kind, 'failed');
  await until(() => channel.signal.aborted, 'the end of the connection');

  const acts: readonly ((far: MemoryTransport) => void)[] = [
    (far) => far.send(Buffer.alloc(96)),
    (far) => far.sendText(),
    (far) => far.close(),
    (far) => far.destroy(),
  ];
  for (const act of acts) {
    const { far, called } = place();
    const { messages } = watch(far);
    await until(() => messages.length === 1, 'the first message');
    act(far);
    assert.equal((await called).kind, 'failed');
  }

  const long = place();
  const noise = createResponder({ staticKey: dashboard });
  const { messages } = watch(long.far);
  await until(() => messages.length === 1, 'the first message');
  noise.read(messages[0] as Buffer);
  long.far.send(noise.write(Buffer.alloc(0)));
  await until(() => messages.length === 2, 'the third message');
  noise.read(messages[1] as Buffer);
  const answer = JSON.stringify({ ...answerOf('ok'), padding: 'x'.repeat(65_535) });
  long.far.send(noise.split().outgoing.encrypt(Buffer.from(answer)));
  assert.equal((await long.called).kind, 'failed');
});

test('An address without a listener is a failure', async () => {
  const cause = new ReceiverError('PROTOCOL', 'no receiver answered');
  const { signal } = new AbortController();
  const parts = { identity: receiverIdentity, expectedPin: dashboard.pin, port: 1, clock: manualClock() };
  assert.deepEqual(await connectBack(() => Promise.reject(cause), { ...parts, signal }), {
    kind: 'failed',
    cause,
  });
});

test('Cancelling ends a call and its connection at once, in any phase', async () => {
  const stages: readonly ((far: MemoryTransport) => Promise<Responded | undefined>)[] = [
    async () => undefined,
    (far) => respond(far, dashboard),
    async (far) => {
      const responded = await respond(far, dashboard);
      responded.channel.pause();
      responded.channel.answer(answerOf('ok'));
      await settled();
      return responded;
    },
  ];
  for (const stage of stages) {
    const { near, far, called, hangUp } = place();
    await stage(far);
    hangUp.abort();
    const { kind } = await called;
    assert.ok(kind === 'cancelled' || kind === 'accepted', kind);
    near.send(Buffer.alloc(1));
    assert.equal(near.bufferedBytes, 0, 'the connection is gone');
  }
  const late = place({ signal: AbortSignal.abort() });
  const seen = watch(late.far);
  assert.deepEqual(await late.called, { kind: 'cancelled' });
  await until(seen.isClosed, 'the end of the connection');
  assert.deepEqual(seen.messages, []);
});

test('A dashboard that keeps the connection open after its answer is disconnected', async () => {
  const { far, clock, called } = place();
  const { channel } = await respond(far, dashboard);
  channel.pause();
  channel.answer(answerOf('ok'));
  await until(() => clock.waiting === 1, 'the wait for the end');
  clock.advance(closeGraceMs);
  assert.deepEqual(await called, { kind: 'accepted' });
  assert.equal(clock.waiting, 0);
});

test('Only a literal address of a single machine is called, and only with a port', () => {
  for (const address of ['192.0.2.10', '127.0.0.1', '10.0.0.1', '2001:db8::1', '::1', '::ffff:192.0.2.1'])
    assert.equal(isCallable({ address, connectBackPort: 6055 }), true, address);
  const never = ['', 'localhost', 'hass.local', '0.0.0.0', '0.1.2.3', '::', '::ffff:0.0.0.0', '224.0.0.251'];
  const odd = [
    '255.255.255.255',
    'ff02::fb',
    'fe80::1%eth0',
    '010.0.0.1',
    '1.2.3',
    '192.0.2.1/x',
    '[::1]',
    '1@2',
  ];
  for (const address of [...never, ...odd])
    assert.equal(isCallable({ address, connectBackPort: 6055 }), false, address);
  assert.equal(isCallable({ address: '192.0.2.10', connectBackPort: 0 }), false);
});
