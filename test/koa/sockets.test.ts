/** Which WebSocket paths of a host's own port are upgraded, by whom, and with whose limits. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Server } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';

import Koa from 'koa';
import websockify from 'koa-websocket';
import { WebSocket } from 'ws';

import { silentLog, type Log } from '../../src/log.js';
import { waitFor } from '../support/wait-for.js';
import { newClient, startReceiver } from '../support/whole.js';

const peerLink = '/remote-build/peer-link';
const events = '/esphome-receiver/events';

async function portOf(t: TestContext, server: Server): Promise<number> {
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  if (!server.listening) await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

function open(t: TestContext, port: number, path: string): WebSocket {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`);
  t.after(() => socket.terminate());
  return socket;
}

/** The HTTP status with which the upgrade is refused, or 101. */
async function statusOf(t: TestContext, port: number, path: string): Promise<number> {
  const socket = open(t, port, path);
  const refused = new Promise<number>((resolve) => {
    socket.on('unexpected-response', (_request, response) => resolve(response.statusCode ?? 0));
  });
  const status = await Promise.race([refused, once(socket, 'open').then(() => 101)]);
  socket.on('error', () => {});
  socket.terminate();
  return status;
}

/** The code with which a socket of this path is closed after a message of this size. */
async function closedAfter(t: TestContext, port: number, path: string, bytes: number): Promise<number> {
  const socket = open(t, port, path);
  await once(socket, 'open');
  socket.send(Buffer.alloc(bytes));
  const [code] = (await once(socket, 'close')) as [number];
  return code;
}

/** A host whose own sockets answer with their path. */
function echoApp(): websockify.App {
  const app = websockify(new Koa());
  app.ws.use((ctx, next) => (ctx.path === events ? next() : ctx.websocket.send(ctx.path)));
  return app;
}

test('On a plain app, a path that nobody serves is answered 404 before the upgrade', async (t) => {
  const { receiver } = await startReceiver(t);
  const app = new Koa();
  receiver.mount(app);
  const port = await portOf(t, app.listen(0, '127.0.0.1'));
  for (const path of ['/', '/other', '/esphome-receiver/state', `${events}/more`]) {
    assert.equal(await statusOf(t, port, path), 404, path);
  }
  for (const path of [peerLink, events]) assert.equal(await statusOf(t, port, path), 101, path);
});

test('A stranger that keeps a refused upgrade half open is closed', async (t) => {
  const { receiver } = await startReceiver(t);
  const app = new Koa();
  receiver.mount(app);
  const server = app.listen(0, '127.0.0.1');
  const port = await portOf(t, server);
  const request = 'GET /other HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
  for (let n = 0; n < 50; n += 1) {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true }).on('error', () => {});
    t.after(() => socket.destroy());
    socket.write(request);
    await once(socket, 'data');
  }
  const count = async (): Promise<number> =>
    new Promise((resolve, reject) => {
      server.getConnections((error, sockets) => (error ? reject(error) : resolve(sockets)));
    });
  await waitFor(async () => (await count()) === 0, { what: 'the end of all sockets' });
});

test("On a host's own koa-websocket, other paths are the host's, and ours are not", async (t) => {
  const { receiver } = await startReceiver(t);
  const app = echoApp();
  receiver.mount(app);
  const port = await portOf(t, app.listen(0, '127.0.0.1'));
  const [said] = (await once(open(t, port, '/other'), 'message')) as [Buffer];
  assert.equal(said.toString(), '/other');
  for (const path of ['/esphome-receiver/other', '/ESPHOME-receiver', '/esphome-receiver/events/x']) {
    assert.equal(await statusOf(t, port, path), 404, path);
  }
  const [first] = (await once(open(t, port, events), 'message')) as [Buffer];
  assert.equal((JSON.parse(first.toString()) as { type: string }).type, 'snapshot');
});

test("Our limits for a message hold on our paths, and the host's on its own", async (t) => {
  const { receiver } = await startReceiver(t);
  const app = websockify(new Koa());
  const sizes: number[] = [];
  app.ws.use((ctx, next) => {
    ctx.websocket.on('message', (data: Buffer) => sizes.push(data.length));
    return next();
  });
  receiver.mount(app);
  const port = await portOf(t, app.listen(0, '127.0.0.1'));
  assert.equal(await closedAfter(t, port, peerLink, 65_536), 1009);
  assert.equal(await closedAfter(t, port, events, 1_025), 1009);
  const socket = open(t, port, '/other');
  await once(socket, 'open');
  socket.send(Buffer.alloc(200_000));
  await waitFor(() => sizes.includes(200_000), { what: "the host's own message" });
  assert.deepEqual(sizes, [200_000]);
});

test('The guard also holds on a WebSocket server that the host opened before it mounted the receiver', async (t) => {
  const { receiver } = await startReceiver(t);
  const app = echoApp();
  const port = await portOf(t, app.listen(0, '127.0.0.1'));
  receiver.mount(app);
  assert.equal(await closedAfter(t, port, peerLink, 65_536), 1009);
  assert.equal(await statusOf(t, port, '/esphome-receiver/other'), 404);
});

test('An upgrade listener of the host gets the paths that nobody else serves', async (t) => {
  const { receiver } = await startReceiver(t);
  const app = new Koa();
  receiver.mount(app);
  const server = app.listen(0, '127.0.0.1');
  const foreign: string[] = [];
  server.on('upgrade', (request, socket) => {
    foreign.push(request.url ?? '');
    if (request.url === '/theirs') socket.end('HTTP/1.1 418 Theirs\r\n\r\n');
  });
  const port = await portOf(t, server);
  assert.equal(await statusOf(t, port, '/esphome-receiver/other'), 404);
  assert.equal(await statusOf(t, port, '/theirs'), 418);
  assert.ok(foreign.includes('/theirs'));
});

test('Two receivers on one app each serve their own events, and an unknown path is still 404', async (t) => {
  const [one, two] = [await startReceiver(t), await startReceiver(t, { prefix: '/second' })];
  const app = new Koa();
  one.receiver.mount(app);
  two.receiver.mount(app, { peerLink: false });
  const port = await portOf(t, app.listen(0, '127.0.0.1'));
  for (const path of [events, '/second/events', peerLink]) assert.equal(await statusOf(t, port, path), 101);
  for (const path of ['/other', '/second/other']) assert.equal(await statusOf(t, port, path), 404);
  const client = await newClient(t, one, 'first', port);
  assert.equal((await client.offloader.preview()).pin, one.receiver.pin);
});

test('Without mount, our paths are refused on a server that takes larger messages, and the log says why', async (t) => {
  const causes: string[] = [];
  const warn: Log['warn'] = (facts) => void causes.push(String(facts['cause']));
  const { receiver } = await startReceiver(t, { log: { ...silentLog, warn } });
  for (const maxPayload of [undefined, 65_535]) {
    const app = websockify(new Koa(), maxPayload === undefined ? undefined : { maxPayload });
    app.ws.use(receiver.sockets());
    const port = await portOf(t, app.listen(0, '127.0.0.1'));
    const link = open(t, port, peerLink);
    const page = open(t, port, events);
    if (maxPayload === undefined) {
      const closed = await Promise.all([once(link, 'close'), once(page, 'close')]);
      assert.deepEqual(
        closed.map(([code]) => code as number),
        [1006, 1006],
      );
      assert.ok(causes.some((cause) => cause.includes('messages of more than 65535 bytes: use mount')));
    } else {
      await Promise.all([once(link, 'open'), once(page, 'message')]);
    }
  }
});

test('Pages that wait for an authorize hook have a place and a time limit, like all strangers', async (t) => {
  const connectionLimits = { sockets: 16, handshakeTimeoutMs: 1_000 };
  const { receiver } = await startReceiver(t, {
    connectionLimits,
    authorize: (ctx) => ctx.query['in'] === 'yes' || new Promise(() => {}),
  });
  const app = new Koa();
  receiver.mount(app);
  const port = await portOf(t, app.listen(0, '127.0.0.1'));
  const operator = open(t, port, `${events}?in=yes`);
  await once(operator, 'message');
  const strangers = await Promise.all(
    Array.from({ length: 40 }, async () => {
      const socket = open(t, port, events);
      await once(socket, 'open');
      return socket;
    }),
  );
  const isOpen = (socket: WebSocket): boolean => socket.readyState === WebSocket.OPEN;
  await waitFor(() => !strangers.some(isOpen), { what: 'the end of all strangers' });
  assert.ok(isOpen(operator), 'who was let in stays');
});
