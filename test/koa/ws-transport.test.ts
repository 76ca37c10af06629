/** The WebSocket transport over real sockets on loopback. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';

import { WebSocket, WebSocketServer } from 'ws';

import type { Transport } from '../../src/protocol/transport.js';
import { createUpgrade } from '../../src/koa/listen.js';
import { wsTransport } from '../../src/koa/ws-transport.js';
import { waitFor } from '../support/wait-for.js';

/** Both ends of a connection: the server end as a transport, the client end as a socket. */
async function pair(t: TestContext): Promise<{ transport: Transport; client: WebSocket; socket: WebSocket }> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  t.after(() => {
    for (const socket of server.clients) socket.terminate();
    server.close();
  });
  await once(server, 'listening');
  const client = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`);
  t.after(() => client.terminate());
  const accepted = once(server, 'connection') as Promise<[WebSocket]>;
  const [[socket]] = await Promise.all([accepted, once(client, 'open')]);
  return { transport: wsTransport(socket, '::ffff:127.0.0.1'), client, socket };
}

function record(transport: Transport): string[] {
  const seen: string[] = [];
  transport.start({
    message: (data) => seen.push(data.toString()),
    text: () => seen.push('(text)'),
    closed: () => seen.push('(closed)'),
  });
  return seen;
}

test('Messages that arrive before the start are kept in order, and the closure is reported last', async (t) => {
  const { transport, client } = await pair(t);
  for (const text of ['one', 'two', 'three']) client.send(Buffer.from(text));
  client.send('words');
  client.close();
  await new Promise((resolve) => setImmediate(resolve));
  const seen = record(transport);
  await waitFor(() => seen.includes('(closed)') || undefined, { deadlineMs: 5000, what: 'the end' });
  assert.deepEqual(seen, ['one', 'two', 'three', '(text)', '(closed)']);
  assert.equal(transport.remoteAddress, '127.0.0.1');
});

test('Messages sent in one tick leave together, in order, and before a close', async (t) => {
  const { client, socket } = await pair(t);
  const calls: string[] = [];
  const wire = { cork: () => void calls.push('cork'), uncork: () => void calls.push('uncork') };
  const transport = wsTransport(socket, '127.0.0.1', wire);
  record(transport);
  const seen: string[] = [];
  client.on('message', (data: Buffer) => seen.push(data.toString()));
  for (const text of ['one', 'two', 'three']) transport.send(Buffer.from(text));
  assert.deepEqual(calls, ['cork']);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(calls, ['cork', 'uncork']);
  transport.send(Buffer.from('four'));
  transport.close();
  await once(client, 'close');
  assert.deepEqual(seen, ['one', 'two', 'three', 'four']);
  assert.deepEqual(calls, ['cork', 'uncork', 'cork', 'uncork']);
});

test('A paused transport delivers nothing until it is resumed', async (t) => {
  const { transport, client } = await pair(t);
  const seen = record(transport);
  client.send(Buffer.from('first'));
  await waitFor(() => seen.length > 0 || undefined, { deadlineMs: 5000, what: 'the first' });
  transport.pause();
  client.send(Buffer.from('second'));
  const pong = once(client, 'pong');
  client.ping();
  transport.send(Buffer.from('x'));
  await once(client, 'message');
  assert.deepEqual(seen, ['first']);
  transport.resume();
  await pong;
  assert.deepEqual(seen, ['first', 'second']);
});

test('drained waits while the other side reads too slowly, and resolves once it has read', async (t) => {
  const { transport, client } = await pair(t);
  record(transport);
  client.pause();
  const piece = Buffer.alloc(1024 * 1024);
  for (let sent = 0; sent < 16; sent += 1) transport.send(piece);
  assert.ok(transport.bufferedBytes > 1024 * 1024);
  const drained = transport.drained(64 * 1024).then(() => 'drained');
  const turn = new Promise((resolve) => setImmediate(resolve, 'not yet'));
  assert.equal(await Promise.race([drained, turn]), 'not yet');
  client.resume();
  await drained;
  assert.ok(transport.bufferedBytes <= 64 * 1024);
});

test('drained resolves when the connection closes', async (t) => {
  const { transport, client } = await pair(t);
  record(transport);
  client.pause();
  for (let sent = 0; sent < 16; sent += 1) transport.send(Buffer.alloc(1024 * 1024));
  const resolved = new Array<string>();
  void transport.drained(0).then(() => resolved.push('before'));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(resolved.length, 0);
  transport.destroy();
  await waitFor(() => resolved.length === 1, { what: 'the wait that began before the close' });
  transport.send(Buffer.from('dropped'));
  void transport.drained(0).then(() => resolved.push('after'));
  await waitFor(() => resolved.length === 2, { what: 'the wait that began after the close' });
});

test("A stranger's malformed frame closes the connection and affects nothing else", async (t) => {
  const { transport, client } = await pair(t);
  const seen = record(transport);
  Reflect.get(client, '_socket').write(Buffer.from([0xff, 0xff, 0xff, 0xff]));
  const other = await pair(t);
  const seenByOther = record(other.transport);
  await waitFor(() => seen.includes('(closed)') || undefined, { deadlineMs: 5000, what: 'the end' });
  assert.deepEqual(seen, ['(closed)']);
  other.client.send(Buffer.from('still here'));
  await waitFor(() => seenByOther.length > 0, { what: 'a message on another connection' });
  assert.deepEqual(seenByOther, ['still here']);
});

test('Closing while paused still reaches the other side', async (t) => {
  const { transport, client } = await pair(t);
  const seen = record(transport);
  await new Promise((resolve) => setImmediate(resolve));
  transport.pause();
  transport.close(1001);
  const [code] = (await once(client, 'close')) as [number];
  assert.equal(code, 1001);
  await waitFor(() => seen.includes('(closed)') || undefined, { deadlineMs: 5000, what: 'the end' });
});

/** Small frames of this opcode as a client sends them, masked with zeros: as many as fit into some reads. */
function frames(opcode: number, count: number): Buffer {
  const frame = Buffer.from([0x80 | opcode, 0x80 | 2, 0, 0, 0, 0, 0x68, 0x69]);
  return Buffer.concat(Array.from({ length: count }, () => frame));
}

/** Counts the turns of the event loop until `isOver`. */
async function turnsUntil(isOver: () => boolean): Promise<number> {
  const deadline = performance.now() + 60_000;
  let turns = 0;
  for (; !isOver(); turns += 1) {
    assert.ok(performance.now() < deadline, 'it is over in time');
    await new Promise((resolve) => setImmediate(resolve));
  }
  return turns;
}

test('However many small messages arrive in one read, a connection delivers one per turn of the event loop', async (t) => {
  const { transport, client } = await pair(t);
  const count = 20_000;
  const seen: string[] = [];
  let [turn, inTurn, most] = [0, 0, 0];
  let lastTurn = -1;
  transport.start({
    message(data) {
      inTurn = turn === lastTurn ? inTurn + 1 : 1;
      lastTurn = turn;
      most = Math.max(most, inTurn);
      seen.push(data.toString());
    },
    text: () => assert.fail('a text'),
    closed() {},
  });
  Reflect.get(client, '_socket').write(frames(0x2, count));
  await turnsUntil(() => {
    turn += 1;
    return seen.length === count;
  });
  // A timer of the test and the transport's own can be in either order.
  assert.ok(most <= 2, `${most} messages in one turn`);
});

test("A stranger's pings and pongs are also read one per turn", async (t) => {
  const accepted: Transport[] = [];
  const upgrade = createUpgrade((transport) => accepted.push(transport));
  const server = createServer().on('upgrade', upgrade).listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  for (const opcode of [0x9, 0xa]) {
    const client = new WebSocket(`ws://127.0.0.1:${port}/remote-build/peer-link`);
    t.after(() => client.terminate());
    await once(client, 'open');
    const seen = record(accepted.at(-1) ?? assert.fail('no transport'));
    const count = 5_000;
    Reflect.get(client, '_socket').write(Buffer.concat([frames(opcode, count), frames(0x2, 1)]));
    const turns = await turnsUntil(() => seen.length > 0);
    assert.deepEqual(seen, ['hi']);
    assert.ok(turns >= count / 2, `${count} in ${turns} turns`);
  }
});

test('Messages read before a pause wait for the resume and are then delivered in order', async (t) => {
  const { transport, client } = await pair(t);
  const seen: string[] = [];
  transport.start({
    message(data) {
      seen.push(data.toString());
      if (seen.length % 5 === 0) transport.pause();
    },
    text: () => assert.fail('a text'),
    closed: () => seen.push('(closed)'),
  });
  const sent = Array.from({ length: 23 }, (_, index) => String(index));
  for (const text of sent) client.send(Buffer.from(text));
  for (let length = 5; length <= 20; length += 5) {
    await waitFor(() => seen.length >= length, { what: `the first ${length}` });
    for (let n = 0; n < 20; n += 1) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(seen.length, length);
    transport.resume();
  }
  await waitFor(() => seen.length === sent.length, { what: 'all' });
  client.close();
  await waitFor(() => seen.includes('(closed)'), { what: 'the end' });
  assert.deepEqual(seen, [...sent, '(closed)']);
});
