/** WebSocket behaviour of the peer link's path on the receiver's own port. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';

import { WebSocket, type ClientOptions } from 'ws';

import { systemClock } from '../../src/async/clock.js';
import { type HalfOpenLimits, listenForPeers, createUpgrade } from '../../src/koa/listen.js';
import { silentLog } from '../../src/log.js';
import type { Transport } from '../../src/protocol/transport.js';
import { waitFor } from '../support/wait-for.js';

interface Side {
  readonly port: number;
  readonly transports: readonly Transport[];
  /** The lengths of the received messages, and the closures. */
  readonly seen: readonly (number | 'closed')[];
  dial(protocols?: string[], options?: ClientOptions): Promise<WebSocket>;
}

async function listening(t: TestContext, limits: Partial<HalfOpenLimits> = {}): Promise<Side> {
  const transports: Transport[] = [];
  const seen: (number | 'closed')[] = [];
  const handleUpgrade = createUpgrade((transport) => {
    transports.push(transport);
    transport.start({
      message: (data) => void seen.push(data.length),
      text: () => assert.fail('a text'),
      closed: () => void seen.push('closed'),
    });
  });
  const place = { port: 0, host: '127.0.0.1', log: silentLog };
  const listener = await listenForPeers({
    ...{ ...place, handleUpgrade, clock: systemClock },
    connectionLimits: { sockets: 10, handshakeTimeoutMs: 10_000, ...limits },
  });
  t.after(() => listener.close());
  return {
    ...{ port: listener.port, transports, seen },
    async dial(protocols = [], options = {}) {
      const url = `ws://127.0.0.1:${listener.port}/remote-build/peer-link`;
      const socket = new WebSocket(url, protocols, options);
      t.after(() => socket.terminate());
      await once(socket, 'open');
      return socket;
    },
  };
}

test('Compression and subprotocols are not negotiated, and the Origin header does not matter', async (t) => {
  const { port } = await listening(t);
  const socket = connect(port, '127.0.0.1');
  t.after(() => socket.destroy());
  const request = [
    'GET /remote-build/peer-link?x=1 HTTP/1.1',
    ...['Host: elsewhere', 'Origin: https://elsewhere.example', 'Connection: Upgrade', 'Upgrade: websocket'],
    ...['Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==', 'Sec-WebSocket-Version: 13'],
    ...['Sec-WebSocket-Protocol: chat, noise', 'Sec-WebSocket-Extensions: permessage-deflate'],
  ];
  socket.write(`${request.join('\r\n')}\r\n\r\n`);
  const [data] = (await once(socket, 'data')) as [Buffer];
  const answer = data.toString('latin1');
  assert.match(answer, /^HTTP\/1\.1 101 /);
  assert.doesNotMatch(answer, /sec-websocket-(?:protocol|extensions)/i);
});

test('A fragmented message arrives as one message', async (t) => {
  const { dial, seen } = await listening(t);
  const socket = await dial();
  for (const fin of [false, false, true]) socket.send(Buffer.alloc(100), { binary: true, fin });
  await waitFor(() => seen.length > 0 || undefined, { deadlineMs: 5_000, what: 'the message' });
  assert.deepEqual(seen, [300]);
});

test('A WebSocket ping is answered', async (t) => {
  const { dial } = await listening(t);
  const socket = await dial();
  socket.ping('alive');
  const [payload] = (await once(socket, 'pong')) as [Buffer];
  assert.equal(payload.toString(), 'alive');
});

test('A message of 65,535 bytes is accepted, and one byte more closes the connection', async (t) => {
  const { dial, seen } = await listening(t);
  const socket = await dial();
  socket.send(Buffer.alloc(65_535));
  socket.send(Buffer.alloc(65_536));
  const [code] = (await once(socket, 'close')) as [number];
  assert.equal(code, 1009);
  await waitFor(() => seen.includes('closed') || undefined, { deadlineMs: 5_000, what: 'the end' });
  assert.deepEqual(seen, [65_535, 'closed']);
});

test('An orderly close has the code for a normal closure', async (t) => {
  const { dial, transports } = await listening(t);
  const socket = await dial();
  const closed = once(socket, 'close') as Promise<[number]>;
  transports[0]?.close();
  assert.equal((await closed)[0], 1_000);
});

test('When too many sockets wait for an upgrade, the oldest is closed, and upgraded sockets stay', async (t) => {
  const { dial, port } = await listening(t, { sockets: 2 });
  const upgraded = await dial();
  const silent: Socket[] = [];
  for (let n = 0; n < 3; n += 1) {
    const socket = connect(port, '127.0.0.1').on('error', () => {});
    t.after(() => socket.destroy());
    await once(socket, 'connect');
    silent.push(socket.resume());
  }
  await once(silent[0] as Socket, 'close');
  await dial();
  await waitFor(() => silent[1]?.closed, { what: 'the end of the second' });
  assert.equal(silent[2]?.closed, false);
  assert.equal(upgraded.readyState, WebSocket.OPEN);
});

test('A client that keeps sending other requests or invalid upgrades is closed in time, and upgraded sockets stay', async (t) => {
  const { dial, port } = await listening(t, { handshakeTimeoutMs: 1_000 });
  const upgraded = await dial();
  const page = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n';
  const improper = page
    .replace('/ ', '/remote-build/peer-link ')
    .replace('\r\n\r\n', '\r\nUpgrade: websocket\r\n');
  const body = 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf';
  await Promise.all(
    ['', page, `${improper}Connection: Upgrade\r\n\r\n`, body].map(async (text) => {
      const socket = connect(port, '127.0.0.1').on('error', () => {});
      t.after(() => socket.destroy());
      const ask = setInterval(() => socket.write(text), 100);
      await new Promise((closed) => socket.resume().once('close', closed));
      clearInterval(ask);
    }),
  );
  assert.equal(upgraded.readyState, WebSocket.OPEN);
});

test('A connection gets one response, so that thousands of requests in one read cost little', async (t) => {
  const { port } = await listening(t);
  const socket = connect(port, '127.0.0.1').on('error', () => {});
  t.after(() => socket.destroy());
  let answers = 0;
  socket.on('data', (data: Buffer) => (answers += data.toString().split('HTTP/1.1 404').length - 1));
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await once(socket, 'close');
  assert.equal(answers, 1);
  const flood = connect(port, '127.0.0.1').on('error', () => {});
  t.after(() => flood.destroy());
  flood.on('data', (data: Buffer) => (answers += data.toString().split('HTTP/1.1 404').length - 1));
  flood.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(50_000));
  await once(flood.resume(), 'close');
  assert.ok(answers <= 2, `${answers} answers`);
  assert.equal((await fetch(`http://127.0.0.1:${port}/`)).status, 404);
});

test('A connection also gets one response for requests that Node would answer by itself', async (t) => {
  const { port } = await listening(t);
  for (const header of ['Expect: anything', 'Expect: 100-continue']) {
    const flood = connect(port, '127.0.0.1').on('error', () => {});
    t.after(() => flood.destroy());
    let text = '';
    flood.on('data', (data: Buffer) => (text += data.toString()));
    flood.write(`GET / HTTP/1.1\r\nHost: x\r\n${header}\r\n\r\n`.repeat(20_000));
    await once(flood, 'close');
    const answers = text.match(/^HTTP\/1\.1 \d+/gm) ?? [];
    assert.ok(
      answers.length <= 1 && answers.every((line) => line.endsWith('404')),
      `${header}: ${answers.length} answers`,
    );
  }
});
