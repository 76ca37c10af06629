/** A whole receiver that connects back over real sockets, and a fake dashboard that answers the call. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createServer as createTcpServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';

import { createUpgrade } from '../../src/koa/listen.js';
import { createTimedReceiver } from '../../src/koa/plugin.js';
import type { ReceiverOptions } from '../../src/koa/receiver-options.js';
import { callFrom, dial } from '../../src/koa/dial.js';
import { newDashboardId, identityOf } from '../../src/peers/identity.js';
import { initiate, respond, type Responded } from '../../src/protocol/handshake.js';
import { callStepMs } from '../../src/server/connect-back.js';
import { standInEsphome } from '../../src/testing/index.js';
import { answerOf } from '../server/played-dashboard.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';

const keys = identityOf(Buffer.alloc(32, 9));
const timing = { sweepMs: 20, silenceMs: 60 };

async function startReceiver(t: Cleanups, options: Partial<ReceiverOptions> = {}, host = '127.0.0.1') {
  const configDir = join(await tempDir(t), 'config');
  await mkdir(configDir);
  const esphome = standInEsphome;
  const receiver = await createTimedReceiver(
    { configDir, esphome, provisionVersions: false, ...options },
    timing,
  );
  t.after(() => receiver.close());
  return { receiver, port: await receiver.listen(0, host), host };
}

/** A dashboard whose own listener records the calls. */
async function playDashboard(
  t: Cleanups,
  { receiver, port, host }: Awaited<ReturnType<typeof startReceiver>>,
) {
  const calls: Responded[] = [];
  const server = createServer();
  const upgrade = createUpgrade((transport) => {
    void respond(transport, keys).then(
      (responded) => calls.push(responded),
      () => transport.destroy(),
    );
  });
  server.on('upgrade', upgrade).listen(0, '127.0.0.1');
  t.after(() => {
    server.close();
    for (const { channel } of calls) channel.destroy();
  });
  await once(server, 'listening');
  const { port: connectBackPort } = server.address() as AddressInfo;
  const dashboardId = newDashboardId();
  const ask = async (intent: 'pair_request' | 'peer_link', more = {}) => {
    const hello = { dashboardId, ...more };
    const { answer, channel } = await initiate(await dial({ host, port }), keys, { intent, hello });
    return { word: answer.intent_response, channel };
  };
  receiver.pairing.open();
  await ask('pair_request');
  await receiver.pairing.approve(dashboardId, keys.pin);
  /** Connects, states its connect-back port, and disconnects. */
  const comeAndGo = async (): Promise<void> => {
    const { word, channel } = await ask('peer_link', { connectBackPort });
    assert.equal(word, 'ok');
    channel.close();
    await waitFor(() => channel.signal.aborted);
  };
  return { calls, dashboardId, connectBackPort, ask, comeAndGo };
}

test('An absent dashboard is called at its last address and told the port; a session ends the call', async (t) => {
  const whole = await startReceiver(t, { connectBack: true });
  const { calls, connectBackPort, ask, comeAndGo } = await playDashboard(t, whole);
  await comeAndGo();
  const call = await waitFor(() => calls[0]);
  assert.equal(call.intent, 'connect_back');
  assert.equal(call.peerPin, whole.receiver.pin);
  assert.equal(call.hello.peerLinkPort, whole.port);

  const { channel } = await ask('peer_link', { connectBackPort });
  await waitFor(() => call.channel.signal.aborted, { what: 'the end of the call' });
  channel.close();
  const next = await waitFor(() => calls[1]);
  next.channel.answer(answerOf('ok'));
  await waitFor(() => next.channel.signal.aborted, { what: 'the end of the call' });
  await waitFor(() => calls[2], { what: 'the call after a further silence' });
});

test('Revoking the dashboard ends the call and prevents further ones', async (t) => {
  const whole = await startReceiver(t, { connectBack: true });
  const { calls, dashboardId, comeAndGo } = await playDashboard(t, whole);
  await comeAndGo();
  const call = await waitFor(() => calls[0]);
  await whole.receiver.peers.revoke(dashboardId);
  await waitFor(() => call.channel.signal.aborted, { what: 'the end of the call' });
  const other = await playDashboard(t, whole);
  await other.comeAndGo();
  await waitFor(() => other.calls[0], { what: 'the call of one that has been silent for less long' });
  assert.equal(calls.length, 1);
});

test('Closing the receiver ends a call in progress', async (t) => {
  const whole = await startReceiver(t, { connectBack: true });
  const { calls, comeAndGo } = await playDashboard(t, whole);
  await comeAndGo();
  const call = await waitFor(() => calls[0]);
  const before = performance.now();
  await whole.receiver.close();
  assert.ok(performance.now() - before < callStepMs / 2, 'the call was waited for');
  await waitFor(() => call.channel.signal.aborted, { what: 'the end of the call' });
});

test('Without the option, no dashboard is called', async (t) => {
  const usual = await playDashboard(t, await startReceiver(t));
  await usual.comeAndGo();
  const wished = await playDashboard(t, await startReceiver(t, { connectBack: true }));
  await wished.comeAndGo();
  await waitFor(() => wished.calls[0], { what: 'the call of the one that was told to' });
  assert.deepEqual(usual.calls, []);
});

test('The call comes from the bound address, where the dashboard then looks for the receiver', async (t) => {
  const whole = await startReceiver(t, { connectBack: true }, '127.0.0.2');
  const { calls, comeAndGo } = await playDashboard(t, whole);
  await comeAndGo();
  assert.equal((await waitFor(() => calls[0])).channel.remoteAddress, '127.0.0.2');

  assert.equal(callFrom('192.0.2.1', '192.0.2.10'), '192.0.2.1');
  for (const bound of ['0.0.0.0', '::', 'localhost', '2001:db8::1'])
    assert.equal(callFrom(bound, '192.0.2.10'), undefined, bound);
  assert.equal(callFrom('2001:db8::1', '2001:db8::2'), '2001:db8::1');
});

test('A connection attempt ends on abort, before it begins and while it waits for an answer', async (t) => {
  const silent = createServer().on('upgrade', () => {});
  silent.listen(0, '127.0.0.1');
  t.after(() => {
    silent.closeAllConnections();
    silent.close();
  });
  await once(silent, 'listening');
  const where = { host: '127.0.0.1', port: (silent.address() as AddressInfo).port };
  const ending = new AbortController();
  const dialled = assert.rejects(dial(where, { signal: ending.signal, timeoutMs: 600_000 }), {
    code: 'CANCELLED',
  });
  await once(silent, 'upgrade');
  ending.abort();
  await dialled;
  await assert.rejects(dial(where, { signal: ending.signal }), { code: 'CANCELLED' });
  await assert.rejects(dial(where, { timeoutMs: 50 }), { code: 'PROTOCOL' });
});

test('A call that is answered one byte at a time is given up too, because few calls run at once', async (t) => {
  const dripping = createTcpServer((socket) => {
    socket.on('error', () => {}).write('HTTP/1.1 101 Switching Protocols\r\nX-Slow: ');
    const timer = setInterval(() => socket.write('a'), 10);
    socket.on('close', () => clearInterval(timer));
  });
  dripping.listen(0, '127.0.0.1');
  t.after(() => void dripping.close());
  await once(dripping, 'listening');
  const where = { host: '127.0.0.1', port: (dripping.address() as AddressInfo).port };
  const dialled = dial(where, { timeoutMs: 200, signal: AbortSignal.timeout(5_000) });
  await assert.rejects(dialled, { code: 'PROTOCOL' });
});
