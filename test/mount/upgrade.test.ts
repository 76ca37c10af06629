/** What the peer link's path takes of a WebSocket, on the receiver's own port. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test, type TestContext } from 'node:test';

import { WebSocket, type ClientOptions } from 'ws';

import type { Transport } from '../../src/link/transport.js';
import { silentLog } from '../../src/log.js';
import { listenForPeers } from '../../src/mount/listen.js';
import { createUpgrade } from '../../src/mount/upgrade.js';
import { waitFor } from '../support/wait-for.js';

interface Side {
  readonly port: number;
  readonly transports: readonly Transport[];
  /** The lengths of the messages that arrived, and the ends. */
  readonly seen: readonly (number | 'closed')[];
  dial(protocols?: string[], options?: ClientOptions): Promise<WebSocket>;
}

async function listening(t: TestContext, maxSockets = 10): Promise<Side> {
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
  const listener = await listenForPeers({ ...place, maxSockets, handleUpgrade });
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

test('Neither compression nor a subprotocol is agreed on, and where the caller comes from does not matter', async (t) => {
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

test('A message that comes in pieces is one message', async (t) => {
  const { dial, seen } = await listening(t);
  const socket = await dial();
  for (const fin of [false, false, true]) socket.send(Buffer.alloc(100), { binary: true, fin });
  await waitFor(() => seen.length > 0 || undefined, { deadlineMs: 5_000, what: 'the message' });
  assert.deepEqual(seen, [300]);
});

test('A ping of the WebSocket is answered', async (t) => {
  const { dial } = await listening(t);
  const socket = await dial();
  socket.ping('alive');
  const [payload] = (await once(socket, 'pong')) as [Buffer];
  assert.equal(payload.toString(), 'alive');
});

test('A message of 65,535 bytes is taken, and one byte more ends the connection', async (t) => {
  const { dial, seen } = await listening(t);
  const socket = await dial();
  socket.send(Buffer.alloc(65_535));
  socket.send(Buffer.alloc(65_536));
  const [code] = (await once(socket, 'close')) as [number];
  assert.equal(code, 1009);
  await waitFor(() => seen.includes('closed') || undefined, { deadlineMs: 5_000, what: 'the end' });
  assert.deepEqual(seen, [65_535, 'closed']);
});

test('A connection that is closed in good order has the code of a normal end', async (t) => {
  const { dial, transports } = await listening(t);
  const socket = await dial();
  const closed = once(socket, 'close') as Promise<[number]>;
  transports[0]?.close();
  assert.equal((await closed)[0], 1_000);
});

test('Of more sockets than may be open the last is dropped, whatever the others say', async (t) => {
  const { dial, port } = await listening(t, 2);
  const silent = connect(port, '127.0.0.1');
  t.after(() => silent.destroy());
  await once(silent, 'connect');
  await dial();
  await assert.rejects(dial(), /hang up|ECONNRESET/);
});
