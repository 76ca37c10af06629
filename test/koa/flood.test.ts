/**
 * Strangers in every state before a session, from eight addresses and repeatedly, while paired dashboards
 * use the receiver. Real sockets, and limits small enough that all of them are reached.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';

import Koa from 'koa';
import websockify from 'koa-websocket';

import { createInitiator } from '../../src/protocol/noise.js';
import { encodeIntent } from '../../src/protocol/intent.js';
import { identityOf } from '../../src/peers/identity.js';
import { waitFor } from '../support/wait-for.js';
import { pairedClient, serveApp, startReceiver, yaml } from '../support/whole.js';

const strangers = 320;
const limits = {
  ...{
    sockets: 48,
    strangers: 16,
    strangersPerAddress: 4,
    handshakesPerSecond: 20,
    handshakeTimeoutMs: 1_000,
  },
};
/** A socket has one second until its upgrade, one until the next check, and one for each wait. */
const goneWithinMs = 10_000;

const upgrade = [
  'GET /remote-build/peer-link HTTP/1.1',
  ...['Host: x', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
  'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n',
].join('\r\n');
const first = createInitiator({ staticKey: identityOf(Buffer.alloc(32, 9)) }).write(encodeIntent('preview'));

/** What each stranger sends before it goes silent. */
const states = {
  'says nothing': '',
  'half a line': 'GET /remote-b',
  'half its headers': 'GET / HTTP/1.1\r\nHost: x\r\nX-Long: ',
  'another page': 'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
  'half a body': 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf',
  'an improper upgrade': upgrade.replace('Version: 13', 'Version: 1'),
  'an upgrade and nothing': upgrade,
  'half a handshake': Buffer.concat([Buffer.from(upgrade), frame(0x82, first)]),
  'half a frame': Buffer.concat([Buffer.from(upgrade), frame(0x82, first).subarray(0, 20)]),
  'a message of garbage': Buffer.concat([Buffer.from(upgrade), frame(0x82, Buffer.alloc(100, 1))]),
  'a text': Buffer.concat([Buffer.from(upgrade), frame(0x81, Buffer.from('hello'))]),
} as const;

/** A client's frame, masked with zeros. */
function frame(opcode: number, data: Buffer): Buffer {
  return Buffer.concat([Buffer.from([opcode, 0x80 | data.length, 0, 0, 0, 0]), data]);
}

interface Flood {
  /** How many the receiver has closed so far. */
  readonly ended: number;
  readonly open: number;
  /** Stops new ones. */
  stop(): void;
}

/** Keeps this many open at once; a closed one returns in another state. */
function flood(t: TestContext, port: number): Flood {
  const texts = Object.values(states);
  const open = new Set<Socket>();
  let [ended, stopped] = [0, false];

  function come(n: number): void {
    const socket = connect({ port, host: '127.0.0.1', localAddress: `127.0.0.${2 + (n % 8)}` });
    open.add(socket);
    socket.on('error', () => {});
    socket.resume().once('close', () => {
      open.delete(socket);
      ended += 1;
      if (!stopped) setImmediate(come, n + strangers + 1);
    });
    socket.write(texts[n % texts.length] ?? '');
  }

  function stop(): void {
    stopped = true;
  }
  t.after(() => {
    stop();
    for (const socket of open) socket.destroy();
  });
  for (let n = 0; n < strangers; n += 1) come(n);
  return {
    get ended() {
      return ended;
    },
    get open() {
      return open.size;
    },
    stop,
  };
}

test('Paired dashboards connect, build and fetch during a flood of strangers, who are all closed in time', async (t) => {
  const whole = await startReceiver(t, { connectionLimits: limits });
  const [early, late] = [await pairedClient(t, whole, 'early'), await pairedClient(t, whole, 'late')];
  const session = await early.openSession();
  const strange = flood(t, whole.port);
  await waitFor(() => strange.ended > strangers, { deadlineMs: 30_000, what: 'a full receiver' });

  const result = await session.build({
    file: 'kitchen.yaml',
    bundle: await early.bundle('kitchen.yaml', yaml('kitchen')),
  });
  assert.deepEqual([result.status, result.errorMessage], ['completed', '']);
  assert.ok((await session.downloadArtifacts(result.jobId)).bytes.length > 0);
  const before = strange.ended;
  const second = await late.openSession();
  const bundle = await late.bundle('attic.yaml', yaml('attic'));
  assert.equal((await second.build({ file: 'attic.yaml', bundle })).status, 'completed');
  assert.ok(strange.ended > before, 'the flood went on');

  strange.stop();
  await waitFor(() => strange.open === 0, { deadlineMs: goneWithinMs, what: 'the end of all strangers' });
  await Promise.all([session.close(), second.close()]);
  await waitFor(() => openSockets() === 0, { what: 'the end of all sockets, on either side' });
});

function openSockets(): number {
  return process.getActiveResourcesInfo().filter((what) => what === 'TCPSocketWrap').length;
}

test('A stranger is closed in time, whatever it sent before it went silent', async (t) => {
  const { port } = await startReceiver(t, { connectionLimits: limits });
  await Promise.all(
    Object.entries(states).map(async ([state, text], n) => {
      const localAddress = `127.0.0.${2 + (n % 8)}`;
      const socket = connect({ port, host: '127.0.0.1', localAddress }).on('error', () => {});
      t.after(() => socket.destroy());
      await once(socket, 'connect');
      socket.write(text);
      socket.resume();
      await waitFor(() => socket.closed, { deadlineMs: goneWithinMs, what: `the end of who sent ${state}` });
    }),
  );
});

test("Also on a host's port, a stranger that asks for one of our paths or an unknown one is disconnected in time", async (t) => {
  const { receiver } = await startReceiver(t, {
    connectionLimits: limits,
    authorize: () => new Promise(() => {}),
  });
  const app = websockify(new Koa());
  receiver.mount(app);
  const port = await serveApp(t, app);
  const ours = Object.entries(states).filter(([, text]) => text.toString('latin1').startsWith(upgrade));
  const paths = ['/esphome-receiver/events', '/esphome-receiver/other', '/other'];
  const elsewhere = paths.map((path) => [path, upgrade.replace('/remote-build/peer-link', path)] as const);
  assert.equal(ours.length, 5);
  const counts = Array.from({ length: 20 }, (_, n) => n);
  await Promise.all(
    [...ours, ...elsewhere].flatMap(([state, text]) =>
      counts.map(async (n) => {
        const localAddress = `127.0.0.${2 + (n % 8)}`;
        const socket = connect({ port, host: '127.0.0.1', localAddress }).on('error', () => {});
        t.after(() => socket.destroy());
        socket.write(text);
        socket.resume();
        await waitFor(() => socket.closed, { deadlineMs: 30_000, what: `the end of who sent ${state}` });
      }),
    ),
  );
});
