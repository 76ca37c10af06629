/** What a person hears when no receiver answers. Real servers on loopback. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer as createWebServer } from 'node:http';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { createServer as createTlsServer } from 'node:tls';

import { WebSocketServer } from 'ws';

import { isReceiverError } from '../../src/errors.js';
import { createOffloader, dial, type ConnectFailure } from '../../src/koa/offloader.js';
import type { DashboardId } from '../../src/paths/index.js';
import { generateKeyPair } from '../../src/protocol/x25519.js';
import { startChild } from '../support/child.js';
import { freePort } from '../support/free-port.js';
import type { Cleanups } from '../support/temp-dir.js';

const host = '127.0.0.1';
const pem = readFileSync(new URL('../fixtures/self-signed.pem', import.meta.url));

async function portOf(t: Cleanups, server: Server): Promise<number> {
  const open = new Set<Socket>();
  server.on('connection', (socket: Socket) => open.add(socket.on('error', () => {})));
  server.listen(0, host);
  t.after(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

/** A server that does this as soon as it has read something. */
function whenAsked(answer: (socket: Socket) => void): Server {
  return createServer((socket) => void socket.once('data', () => answer(socket)));
}

const tlsServer = (): Server => createTlsServer({ key: pem, cert: pem }).on('tlsClientError', () => {});
/** As it does when it has no certificate for the name that is asked for. */
const refusingTlsServer = (): Server => createTlsServer({}).on('tlsClientError', () => {});
const webServer = (status: number): Server =>
  createWebServer((_request, response) => void response.writeHead(status).end('hello'));

const servers: readonly (readonly [string, ConnectFailure, () => Server, RegExp])[] = [
  ['A web server', 'web_server', () => webServer(200), /HTTP status 200; .*6055/],
  ['A web server without the path', 'web_server', () => webServer(404), /HTTP status 404/],
  ['A web server that refuses requests', 'web_server', () => webServer(400), /HTTP status 400/],
  ['A TLS server', 'tls', tlsServer, /TLS/],
  ['A TLS server that refuses the name', 'tls', refusingTlsServer, /TLS/],
  ['A silent server', 'silent', () => createServer(() => {}), /sent nothing for 300 ms/],
  ['A server that hangs up at once', 'hung_up', () => createServer((socket) => socket.destroy()), /closed/],
  ['A server that hangs up when asked', 'hung_up', () => whenAsked((socket) => socket.end()), /closed/],
  ['A server that cuts the line', 'hung_up', () => whenAsked((socket) => socket.resetAndDestroy()), /closed/],
  ['An SSH server', 'other_server', () => createServer((s) => s.write('SSH-2.0-x\r\n')), /another kind/],
  [
    'A WebSocket server that calculates wrongly',
    'other_server',
    () =>
      whenAsked((socket) =>
        socket.write(
          'HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n',
        ),
      ),
    /another kind/,
  ],
];

async function failureOf(where: { host: string; port: number }, timeoutMs = 60_000) {
  const error: unknown = await dial(where, { timeoutMs }).then(
    () => null,
    (failure: unknown) => failure,
  );
  assert.ok(isReceiverError(error, 'PROTOCOL'), String(error));
  assert.ok(error.cause instanceof Error);
  assert.match(error.message, /^no receiver answered at "[^"]+ port \d+": \w.*\w$/);
  return error;
}

for (const [what, reason, server, text] of servers) {
  test(`${what} is recognised as that, with advice`, async (t) => {
    const port = await portOf(t, server());
    const { message, facts } = await failureOf({ host, port }, reason === 'silent' ? 300 : undefined);
    assert.equal(facts['reason'], reason, message);
    assert.match(message, text);
  });
}

test('A refused port, and a name that does not exist, are recognised as that, with the code of the system', async () => {
  const refused = await failureOf({ host, port: await freePort() });
  assert.deepEqual([refused.facts['reason'], refused.facts['code']], ['refused', 'ECONNREFUSED']);
  const unknown = await failureOf({ host: 'no-such-host.invalid', port: 6055 });
  assert.equal(unknown.facts['reason'], 'unknown_host');
});

test('A host that accepts no connection in time is reported as unreachable, not as silent', async (t) => {
  // Nobody accepts, so the kernel takes as many connections as it queues, and then leaves the next ones unanswered.
  const stopped = await startChild(t, [
    process.execPath,
    '-e',
    `const server = require('net').createServer();
     server.listen({ port: 0, host: '${host}', backlog: 1 }, () => console.log('on ' + server.address().port + '.'));`,
  ]);
  const [, text] = await stopped.printed(/on (\d+)\./, { deadlineMs: 60_000 });
  stopped.signal('SIGSTOP');
  const port = Number(text);
  for (let queued = 0; queued < 16; queued += 1) {
    const socket = connect(port, host).on('error', () => {});
    t.after(() => void socket.destroy());
    await Promise.race([once(socket, 'connect'), pause(50)]);
  }
  const { facts, message } = await failureOf({ host, port }, 500);
  assert.equal(facts['reason'], 'unreachable', message);
});

test('A host or port that cannot exist is an invalid option, not a network failure', async () => {
  for (const where of [
    { host, port: 99_999 },
    { host: 'a b', port: 6055 },
    { host: '', port: 6055 },
  ]) {
    await assert.rejects(dial(where), { code: 'OPTIONS', message: /^invalid address ".*": expected a host/ });
  }
});

test('A WebSocket server that is not a receiver says why the handshake failed: silent, or hung up', async (t) => {
  const identity = { ...generateKeyPair(), dashboardId: 'a'.repeat(32) as DashboardId };
  const server = new WebSocketServer({ port: 0, host });
  t.after(() => {
    for (const socket of server.clients) socket.terminate();
    server.close();
  });
  await once(server, 'listening');
  server.on('connection', (socket) => socket.once('message', () => socket.close()));
  const { port } = server.address() as AddressInfo;
  const offloader = createOffloader({ identity, connect: () => dial({ host, port }) });
  await assert.rejects(offloader.preview(), (error) => {
    assert.ok(isReceiverError(error, 'PROTOCOL'));
    assert.equal(error.facts['reason'], 'hung_up');
    return true;
  });
});
