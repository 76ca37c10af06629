/** Covers src/protocol/channel.ts and src/protocol/transport.ts. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';

import * as fc from 'fast-check';

import { isReceiverError, type ErrorCode } from '../../src/errors.js';
import { maxInboundBytes, maxOutboundBytes } from '../../src/protocol/channel.js';
import { pinOf } from '../../src/protocol/fingerprint.js';
import { initiate, respond, type Responded } from '../../src/protocol/handshake.js';
import type { IntentAnswer } from '../../src/protocol/intent.js';
import { type Cipher, createInitiator } from '../../src/protocol/noise.js';
import { memoryTransportPair, type MemoryTransport } from '../../src/protocol/transport.js';
import { generateKeyPair } from '../../src/protocol/x25519.js';
import { waitFor } from '../support/wait-for.js';

const receiverKey = generateKeyPair();
const offloaderKey = generateKeyPair();
const empty = Buffer.alloc(0);

function answerOf(word: string, reason?: string): IntentAnswer {
  return {
    intent_response: word,
    reason,
    esphome_version: '2026.10.0',
    auto_provision_supported: false,
    reset_build_env_supported: false,
    friendly_name: 'buildbox',
    ha_addon: false,
  };
}

const code =
  (expected: ErrorCode) =>
  (error: unknown): boolean =>
    isReceiverError(error, expected);

/** Records the events of a transport or channel. */
function recorder(transport?: MemoryTransport) {
  const seen: string[] = [];
  const messages: Buffer[] = [];
  transport?.start({
    message(data) {
      seen.push(`message ${data.length}`);
      messages.push(data);
    },
    text: () => seen.push('text'),
    closed: () => seen.push('closed'),
  });
  return { seen, messages };
}

/** A client whose every byte the test sends, after a valid handshake with a receiver. */
async function rawClient(
  intentPayload = '{"intent":"peer_link"}',
  helloPayload = '{"dashboard_id":"abcdefgh"}',
) {
  const [near, far] = memoryTransportPair();
  const responded = respond(far, receiverKey);
  const record = recorder(near);
  const noise = createInitiator({ staticKey: offloaderKey });
  near.send(noise.write(Buffer.from(intentPayload)));
  const m2 = await waitFor(() => record.messages.shift());
  noise.read(m2);
  near.send(noise.write(Buffer.from(helloPayload)));
  const { outgoing, incoming } = noise.split();
  const side = await responded;
  const send = (value: unknown, cipher: Cipher = outgoing): void =>
    near.send(cipher.encrypt(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))));
  const received = async (): Promise<Record<string, unknown>> =>
    JSON.parse(incoming.decrypt(await waitFor(() => record.messages.shift())).toString());
  return { near, far, side, outgoing, incoming, record, send, received };
}

/** Opens the receiver's channel and records its events. */
function openChannel({ channel }: Responded) {
  const seen: unknown[] = [];
  let alive = 0;
  channel.open({
    anyDecryptedFrame: () => alive++,
    frame: (parsed) => seen.push(parsed.kind === 'frame' ? parsed.frame : parsed),
    malformed: () => seen.push('malformed'),
    closed: () => seen.push('closed'),
  });
  return { seen, alive: () => alive };
}

test('Both sides agree on intent, hello, pins and answer, and then exchange frames in order', async () => {
  const [near, far] = memoryTransportPair('192.0.2.10');
  const [left, right] = await Promise.all([
    initiate(near, offloaderKey, {
      intent: 'peer_link',
      expectedPin: pinOf(receiverKey.publicKey),
      hello: { dashboardId: 'abcdefgh', friendlyName: ' hass ', connectBackPort: 6055 },
    }),
    respond(far, receiverKey).then((side) => {
      assert.equal(side.channel.answer(answerOf('ok')), true);
      side.channel.send({ type: 'queue_status', idle: true, running: false, queue_depth: 0 });
      return side;
    }),
  ]);
  assert.equal(right.intent, 'peer_link');
  assert.equal(right.hello.dashboardId, 'abcdefgh');
  assert.equal(right.hello.friendlyName, 'hass');
  assert.equal(right.hello.connectBackPort, 6055);
  assert.equal(right.peerPin, pinOf(offloaderKey.publicKey));
  assert.deepEqual(right.peerStaticKey, offloaderKey.publicKey);
  assert.equal(right.channel.remoteAddress, '192.0.2.10');
  assert.equal(left.peerPin, pinOf(receiverKey.publicKey));
  assert.equal(left.answer.intent_response, 'ok');
  assert.equal(left.answer.esphome_version, '2026.10.0');

  const atReceiver = openChannel(right);
  const atOffloader: unknown[] = [];
  left.channel.open({
    frame: (parsed) => atOffloader.push(parsed.kind === 'frame' ? parsed.frame.type : parsed),
    malformed: () => atOffloader.push('malformed'),
    closed: () => atOffloader.push('closed'),
  });
  for (let nonce = 0; nonce < 50; nonce++) {
    left.channel.send({ type: 'ping', nonce });
    right.channel.send({ type: 'pong', nonce });
  }
  left.channel.terminate('client_stopped');
  await waitFor(() => atReceiver.seen.includes('closed') && atOffloader.includes('closed'));
  assert.deepEqual(atReceiver.seen, [
    ...Array.from({ length: 50 }, (_, nonce) => ({ type: 'ping', nonce })),
    { type: 'terminate', reason: 'client_stopped' },
    'closed',
  ]);
  assert.ok(left.channel.signal.aborted && right.channel.signal.aborted);
  assert.equal(right.channel.send({ type: 'pong', nonce: 0 }), false, 'nothing leaves after the end');
});

test('An answer directly before the end of the connection still arrives', async () => {
  const [near, far] = memoryTransportPair();
  const [left] = await Promise.all([
    initiate(near, offloaderKey, { intent: 'preview' }),
    respond(far, receiverKey).then(({ intent, hello, channel }) => {
      assert.equal(intent, 'preview');
      assert.equal(hello.dashboardId, '');
      channel.answer({ ...answerOf('ok'), requires_pairing_key: true });
      channel.close();
      return assert.equal(channel.answer(answerOf('ok')), false);
    }),
  ]);
  assert.equal(left.answer.requires_pairing_key, true);
  await waitFor(() => left.channel.signal.aborted);
});

test('A missing or unknown intent still completes the handshake, so that the refusal is encrypted', async () => {
  for (const payload of ['', '{}', 'x', '{"intent":"dance"}', '{"intent":null}']) {
    const client = await rawClient(payload, '');
    assert.equal(client.side.intent, undefined);
    client.side.channel.answer(answerOf('rejected', 'bad_intent'));
    client.side.channel.close();
    assert.equal((await client.received())['reason'], 'bad_intent');
    await waitFor(() => client.record.seen.includes('closed'));
  }
});

test('A silent client is closed without an answer after the timeout, at either of the two waits', async () => {
  const [near, far] = memoryTransportPair();
  const record = recorder(near);
  await assert.rejects(respond(far, receiverKey, { timeoutMs: 20 }), code('PROTOCOL'));
  await waitFor(() => record.seen.includes('closed'));
  assert.deepEqual(record.seen, ['closed']);

  const [nearToo, farToo] = memoryTransportPair();
  const recordToo = recorder(nearToo);
  nearToo.send(createInitiator({ staticKey: offloaderKey }).write(empty));
  await assert.rejects(respond(farToo, receiverKey, { timeoutMs: 20 }), code('PROTOCOL'));
  await waitFor(() => recordToo.seen.includes('closed'));
  assert.deepEqual(recordToo.seen, ['message 96', 'closed']);
});

test('A text message, an early close, a cancellation or a malformed message ends the handshake silently', async () => {
  const cancel = new AbortController();
  const cases: readonly [(near: MemoryTransport) => void, ErrorCode][] = [
    [(near) => near.sendText(), 'PROTOCOL'],
    [(near) => near.close(), 'PROTOCOL'],
    [(near) => near.destroy(), 'PROTOCOL'],
    [(near) => near.send(Buffer.alloc(31)), 'NOISE'],
    [(near) => near.send(Buffer.alloc(32)), 'NOISE'],
    [(near) => near.send(randomBytes(65_536)), 'NOISE'],
    [
      (near) => {
        near.send(createInitiator({ staticKey: offloaderKey }).write(empty));
        near.send(randomBytes(64));
      },
      'NOISE',
    ],
    [() => cancel.abort(), 'CANCELLED'],
  ];
  for (const [act, expected] of cases) {
    const [near, far] = memoryTransportPair();
    const record = recorder(near);
    const responding = respond(far, receiverKey, { signal: cancel.signal });
    act(near);
    await assert.rejects(responding, code(expected));
    await waitFor(() => record.seen.includes('closed'));
    assert.ok(!record.seen.some((event) => event.startsWith('message') && event !== 'message 96'));
  }
  await assert.rejects(
    respond(memoryTransportPair()[0], receiverKey, { signal: cancel.signal }),
    code('CANCELLED'),
    'a signal that was aborted before',
  );
});

test('Any bytes as handshake messages end in a typed error and a closed connection', async () => {
  const known = new Set(['NOISE', 'PROTOCOL']);
  const message = fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.uint8Array({ minLength: 96, maxLength: 200 }),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(message, { minLength: 1, maxLength: 4 }),
      fc.boolean(),
      async (messages, asServer) => {
        const [near, far] = memoryTransportPair();
        const record = recorder(near);
        const talking = asServer
          ? respond(far, receiverKey, { timeoutMs: 1_000 })
          : initiate(far, offloaderKey, { intent: 'preview', timeoutMs: 1_000 });
        for (const bytes of messages) near.send(bytes);
        near.close();
        await assert.rejects(talking, (error) => isReceiverError(error) && known.has(error.code));
        await waitFor(() => record.seen.includes('closed'));
      },
    ),
    { numRuns: 60 },
  );
});

test('An offloader that meets an unexpected key disconnects before it names itself', async () => {
  const [near, far] = memoryTransportPair();
  const responding = respond(far, receiverKey);
  const refused = assert.rejects(responding, code('PROTOCOL'), 'the receiver never sees the third message');
  await assert.rejects(
    initiate(near, offloaderKey, {
      intent: 'peer_link',
      expectedPin: pinOf(offloaderKey.publicKey),
      hello: { dashboardId: 'abcdefgh' },
    }),
    code('PAIRING'),
  );
  await refused;
});

test('An offloader gives up on a silent receiver, and on a malformed answer', async () => {
  const [near, far] = memoryTransportPair();
  recorder(far);
  await assert.rejects(initiate(near, offloaderKey, { intent: 'preview', timeoutMs: 20 }), code('PROTOCOL'));

  const [left, right] = memoryTransportPair();
  const responding = respond(right, receiverKey).then(({ channel }) =>
    channel.send({ type: 'ping', nonce: 1 }),
  );
  await assert.rejects(initiate(left, offloaderKey, { intent: 'preview' }), code('PROTOCOL'));
  await responding;

  const [parked, parking] = memoryTransportPair();
  const held = respond(parking, receiverKey);
  const waiting = initiate(parked, offloaderKey, {
    intent: 'pair_status',
    timeoutMs: 5_000,
    answerTimeoutMs: 20,
  });
  await assert.rejects(waiting, code('PROTOCOL'), 'the wait for the answer has a limit of its own');
  const { channel } = await held;
  await waitFor(() => channel.signal.aborted, { what: 'the receiver learns that a parked client has gone' });
});

test('A client that sends before it was answered is disconnected', async () => {
  const client = await rawClient();
  client.send({ type: 'ping', nonce: 1 });
  await waitFor(() => client.side.channel.signal.aborted);
  const { seen } = openChannel(client.side);
  await waitFor(() => seen.length > 0);
  assert.deepEqual(seen, ['closed']);
});

test('Frames between the answer and the opening are kept in order, and few of them are buffered', async () => {
  const client = await rawClient();
  client.side.channel.answer(answerOf('ok'));
  await client.received();
  for (let nonce = 0; nonce < 100; nonce++) client.send({ type: 'ping', nonce, filler: 'x'.repeat(1_000) });
  const sent = client.near.bufferedBytes;
  await waitFor(() => client.near.bufferedBytes < sent);
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(client.near.bufferedBytes > sent * 0.95, 'the rest waits at the sender');
  const { seen } = openChannel(client.side);
  assert.deepEqual(seen, [], 'nothing is delivered inside open');
  await waitFor(() => seen.length === 100);
  assert.deepEqual(
    seen,
    Array.from({ length: 100 }, (_, nonce) => ({ type: 'ping', nonce })),
  );
});

test('Unknown and invalid frames count as alive, malformed messages do not and are reported once', async () => {
  const client = await rawClient();
  client.side.channel.answer(answerOf('ok'));
  const { seen, alive } = openChannel(client.side);
  client.send({ type: 'novelty' });
  client.send({ type: 'cancel_job', job_id: 5 });
  client.send('[]');
  client.send({ type: 'ping', nonce: 1 });
  client.near.sendText();
  client.near.close();
  await waitFor(() => seen.includes('closed'));
  assert.deepEqual(seen, [
    { kind: 'unknown', type: 'novelty' },
    { kind: 'invalid', type: 'cancel_job', jobId: '' },
    'malformed',
    'closed',
  ]);
  assert.equal(alive(), 2);
});

test('Text, a forged, a replayed, a too short and a too large message are malformed; 61 440 bytes are not', async () => {
  const padded = (bytes: number): string => {
    const frame = JSON.stringify({ type: 'ping', nonce: '' });
    return `${frame.slice(0, -2)}${'x'.repeat(bytes - 16 - frame.length)}"}`;
  };
  type Client = Awaited<ReturnType<typeof rawClient>>;
  const cases: readonly [string, (client: Client) => void][] = [
    ['text', ({ near }) => near.sendText()],
    ['forged', ({ near }) => near.send(randomBytes(100))],
    ['short', ({ near }) => near.send(randomBytes(15))],
    ['empty', ({ near }) => near.send(empty)],
    ['large', ({ send }) => send(padded(maxInboundBytes + 1))],
    [
      'replayed',
      ({ near, outgoing }) => {
        const message = outgoing.encrypt(Buffer.from('{"type":"novelty"}'));
        near.send(message);
        near.send(message);
      },
    ],
  ];
  for (const [name, act] of cases) {
    const client = await rawClient();
    client.side.channel.answer(answerOf('ok'));
    const { seen } = openChannel(client.side);
    act(client);
    await waitFor(() => seen.includes('malformed'), { what: `${name} is malformed` });
  }
  const client = await rawClient();
  client.side.channel.answer(answerOf('ok'));
  const { seen, alive } = openChannel(client.side);
  client.send(padded(maxInboundBytes));
  await waitFor(() => alive() === 1);
  assert.ok(!seen.includes('malformed'));
});

test('A frame that is too large for the other side is not sent, and the next one still decrypts', async () => {
  const client = await rawClient();
  const { channel } = client.side;
  channel.answer(answerOf('ok'));
  await client.received();
  const frame = (line: string) => ({ type: 'job_output', job_id: 'a', stream: 'stdout', line }) as const;
  const room = maxOutboundBytes - 16 - JSON.stringify(frame('')).length;
  assert.equal(channel.send(frame('x'.repeat(room + 1))), false);
  assert.equal(channel.send(frame('\u0001'.repeat(room / 3))), false, 'a control character takes six bytes');
  assert.equal(channel.send(frame('x'.repeat(room))), true);
  const message = await waitFor(() => client.record.messages.shift());
  assert.equal(message.length, maxOutboundBytes);
  assert.equal(JSON.parse(client.incoming.decrypt(message).toString()).line.length, room);
  assert.equal(channel.send(frame('a \ud800 b')), true);
  assert.equal((await client.received())['line'], 'a \ufffd b', 'no lone surrogate leaves');
});

test('After a terminate, nothing else is sent, and no further message is delivered', async () => {
  const client = await rawClient();
  const { channel } = client.side;
  channel.answer(answerOf('ok'));
  await client.received();
  const { seen } = openChannel(client.side);
  client.send({ type: 'ping', nonce: 1 });
  channel.terminate('malformed_frame');
  channel.terminate('heartbeat_timeout');
  assert.equal(channel.send({ type: 'pong', nonce: 1 }), false);
  assert.deepEqual(await client.received(), { type: 'terminate', reason: 'malformed_frame' });
  await waitFor(() => seen.length > 0 && client.record.seen.includes('closed'));
  assert.deepEqual(seen, ['closed']);
  assert.deepEqual(client.record.messages, []);
});

test('A paused channel makes the sender wait, and a waiter is released by reading or by the close', async () => {
  const client = await rawClient();
  const { channel } = client.side;
  channel.answer(answerOf('ok'));
  await client.received();
  client.near.pause();
  const line = 'x'.repeat(10_000);
  for (let count = 0; count < 10; count++) {
    channel.send({ type: 'job_output', job_id: 'a', stream: 'stdout', line });
  }
  assert.ok(channel.bufferedBytes > 100_000);
  let drained = false;
  const waiting = channel.drained(50_000).then(() => (drained = true));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(drained, false);
  client.near.resume();
  await waiting;
  assert.ok(channel.bufferedBytes <= 50_000);
  await channel.drained(0);
  client.near.pause();
  channel.send({ type: 'job_output', job_id: 'a', stream: 'stdout', line });
  const untilTheEnd = channel.drained(0);
  channel.destroy();
  await untilTheEnd;
  await waitFor(() => client.record.seen.includes('closed'));
});

test('The memory pair delivers asynchronously and in order, with messages before a close, and each close once', async () => {
  const [near, far] = memoryTransportPair();
  near.send(Buffer.from('1'));
  near.sendText();
  const record = recorder(far);
  assert.deepEqual(record.seen, []);
  const own = recorder(near);
  const data = Buffer.from('22');
  near.send(data);
  data.fill(0);
  near.close();
  near.send(Buffer.from('never'));
  near.close();
  await waitFor(() => own.seen.includes('closed'));
  assert.deepEqual(record.seen, ['message 1', 'text', 'message 2', 'closed']);
  assert.equal(
    record.messages[1]?.toString(),
    '22',
    'what was sent is not the sender\u2019s memory any more',
  );
  near.destroy();
  far.close();

  const [left, right] = memoryTransportPair();
  const [atLeft, atRight] = [recorder(left), recorder(right)];
  right.pause();
  left.send(Buffer.from('lost'));
  left.destroy();
  left.destroy();
  await waitFor(() => atLeft.seen.length > 0 && atRight.seen.length > 0);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([atLeft.seen, atRight.seen, left.bufferedBytes], [['closed'], ['closed'], 0]);
  const late = memoryTransportPair();
  late[0].destroy();
  const lateRecord = recorder(late[1]);
  await waitFor(() => lateRecord.seen.length > 0);
  assert.deepEqual(lateRecord.seen, ['closed']);
});
