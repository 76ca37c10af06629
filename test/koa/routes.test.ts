/**
 * The admin routes and the event stream, as an operator's page uses them. Covers src/receiver-api.ts, src/views.ts,
 * src/koa/sockets.ts and src/koa/state.ts.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { access, writeFile } from 'node:fs/promises';
import { connect, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import Koa from 'koa';
import { WebSocket } from 'ws';

import { pinPictures, pinText, type ReceiverOptions } from '../../src/index.js';
import { ReceiverError } from '../../src/errors.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { newClient, pairedClient, serveApp, startReceiver, yaml, type Whole } from '../support/whole.js';

interface Host extends Whole {
  readonly origin: string;
  ask(method: string, path: string, body?: object): Promise<{ status: number; body: unknown }>;
}

async function startHost(t: TestContext, options: Partial<ReceiverOptions> = {}): Promise<Host> {
  const whole = await startReceiver(t, options);
  const app = new Koa();
  app.silent = true;
  whole.receiver.mount(app);
  const origin = `127.0.0.1:${await serveApp(t, app)}`;
  return {
    ...whole,
    origin,
    async ask(method, path, body) {
      const response = await fetch(`http://${origin}/esphome-receiver/${path}`, {
        method,
        ...(body && { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
      });
      const text = await response.text();
      return {
        status: response.status,
        body: text.startsWith('{') || text.startsWith('[') ? JSON.parse(text) : text,
      };
    },
  };
}

test('An operator opens the window, sees a request, approves exactly that request, and can revoke the peer', async (t) => {
  const host = await startHost(t);
  const { pin } = host.receiver;
  const client = await newClient(t, host, 'Home');
  assert.equal((await host.ask('POST', 'pairing/open')).status, 200);
  await client.offloader.requestPairing({ pin });

  const { body: requests } = await host.ask('GET', 'pairing/requests');
  const [request] = requests as { dashboardId: string; pin: string; label: string }[];
  assert.ok(request);
  assert.deepEqual([request.dashboardId, request.label], [client.dashboardId, 'Home']);

  const approve = `pairing/requests/${client.dashboardId}/approve`;
  assert.equal((await host.ask('POST', approve, {})).status, 400);
  assert.deepEqual((await host.ask('POST', approve, { pin: 'f'.repeat(64) })).status, 409);
  assert.equal((await host.ask('POST', approve, { pin: request.pin })).status, 200);
  assert.equal((await host.ask('POST', approve, { pin: request.pin })).status, 409);
  assert.equal((await host.ask('POST', 'pairing/close')).status, 204);

  const { body: peers } = await host.ask('GET', 'peers');
  assert.deepEqual(
    (peers as { dashboardId: string; connected: boolean }[]).map((peer) => [
      peer.dashboardId,
      peer.connected,
    ]),
    [[client.dashboardId, false]],
  );
  assert.equal((await host.ask('DELETE', `peers/${client.dashboardId}`)).status, 204);
  assert.equal((await host.ask('DELETE', `peers/${client.dashboardId}`)).status, 404);
});

test('Every fingerprint comes in all its forms, so a page needs no table of its own', async (t) => {
  const host = await startHost(t);
  const { receiver, ask } = host;
  const paired = await pairedClient(t, host, 'paired');
  const asking = await newClient(t, host, 'asking');
  await asking.offloader.requestPairing({ pin: receiver.pin });

  type Shown = { pin: string; dashboardId: string; fingerprint: { pictures: object[]; text: string } };
  const { body: state } = (await ask('GET', 'state')) as { body: Shown & { peers: Shown[] } };
  const { body: requests } = (await ask('GET', 'pairing/requests')) as { body: Shown[] };
  const shown = [state, ...state.peers, ...requests];
  assert.deepEqual(
    shown.map(({ dashboardId: id }) => id),
    [undefined, paired.dashboardId, asking.dashboardId],
  );
  assert.deepEqual(
    shown.map(({ pin }) => pin),
    [receiver.pin, receiver.peers.list()[0]?.pin, receiver.pairing.requests()[0]?.pin],
  );
  for (const { pin, fingerprint } of shown) {
    assert.deepEqual(fingerprint, { pictures: pinPictures(pin), text: pinText(pin) });
  }
});

test('Each page has its share of the pairing window, and the last page to close it ends it', async (t) => {
  const host = await startHost(t);
  const closesInMs = async (): Promise<number> => {
    const { body } = await host.ask('GET', 'state');
    const ms = (body as { pairing: { closesInMs: number } }).pairing.closesInMs;
    assert.ok(Number.isInteger(ms), `${ms} is a whole number`);
    return ms;
  };
  for (const client of ['one', 'two']) {
    assert.equal((await host.ask('POST', 'pairing/open', { client })).status, 200);
  }
  assert.equal((await host.ask('POST', 'pairing/close', { client: 'one' })).status, 204);
  assert.ok((await closesInMs()) > 200_000);
  assert.equal((await host.ask('POST', 'pairing/close', { client: 'two' })).status, 204);
  assert.equal(await closesInMs(), 0);
  const long = await host.ask('POST', 'pairing/open', { client: 'x'.repeat(65) });
  assert.deepEqual([long.status, await closesInMs()], [400, 0]);
  for (let n = 0; n < 64; n += 1) await host.ask('POST', 'pairing/open', { client: `page ${n}` });
  assert.equal((await host.ask('POST', 'pairing/open', { client: 'one more' })).status, 400);
  await host.ask('POST', 'pairing/close');
  assert.equal(await closesInMs(), 0);
});

test('A request can be rejected, and an invalid id is refused with the rule that it broke', async (t) => {
  const host = await startHost(t);
  const client = await newClient(t, host);
  await host.ask('POST', 'pairing/open');
  await client.offloader.requestPairing({ pin: host.receiver.pin });
  assert.equal((await host.ask('POST', `pairing/requests/${client.dashboardId}/reject`)).status, 204);
  assert.equal((await host.ask('POST', `pairing/requests/${client.dashboardId}/reject`)).status, 404);
  const bad = await host.ask('POST', 'pairing/requests/%2e%2e%2fx/reject');
  assert.equal(bad.status, 400);
  assert.equal((bad.body as { error: string }).error, 'TRAVERSAL');
});

test('Jobs are listed, shown and cancelled, and the events report each change as it happens', async (t) => {
  const host = await startHost(t);
  const client = await pairedClient(t, host);
  const session = await client.openSession();
  const events: { type: string; job?: { id: string; state: string } }[] = [];
  const socket = new WebSocket(`ws://${host.origin}/esphome-receiver/events`);
  t.after(() => socket.terminate());
  socket.on('message', (data: Buffer) => events.push(JSON.parse(data.toString())));
  await waitFor(() => events[0]?.type === 'snapshot', { what: 'the snapshot' });

  const bundle = await client.bundle('kitchen.yaml', yaml('kitchen', 'sleep=60000'));
  const building = session.build({ file: 'kitchen.yaml', bundle });
  await waitFor(() => events.some(({ job }) => job?.state === 'running'), { what: 'the running job' });
  const { body: jobs } = await host.ask('GET', 'jobs');
  const [job] = jobs as { id: string; state: string }[];
  assert.ok(job);
  assert.equal(((await host.ask('GET', `jobs/${job.id}`)).body as typeof job).state, 'running');
  assert.equal((await host.ask('GET', 'jobs/none')).status, 404);
  assert.equal((await host.ask('POST', `jobs/${job.id}/cancel`)).status, 202);
  assert.equal((await building).status, 'cancelled');
  assert.equal((await host.ask('POST', `jobs/${job.id}/cancel`)).status, 404);
  await waitFor(() => events.some((event) => event.job?.state === 'cancelled'), { what: 'the end' });
  assert.ok(!events.some(({ type }) => type === 'output'), 'output is sent to who asks for that job only');
});

test('A page that names a job gets its output, each line with only the id of the job', async (t) => {
  const host = await startHost(t);
  const client = await pairedClient(t, host);
  const session = await client.openSession();
  const barrier = join(await tempDir(t), 'go-on');
  const bundle = await client.bundle('kitchen.yaml', yaml('kitchen', `wait=${barrier}`));
  let output = '';
  const building = session.build({ file: 'kitchen.yaml', bundle, onOutput: (line) => (output += line) });
  await waitFor(() => output.includes('waiting'), { what: 'a build that waits' });
  const { body } = await host.ask('GET', 'jobs');
  const [job] = body as { id: string }[];
  const events: { type: string; jobId?: string; line?: string; job?: unknown }[] = [];
  const socket = new WebSocket(`ws://${host.origin}/esphome-receiver/events?job=${job?.id}`);
  t.after(() => socket.terminate());
  socket.on('message', (data: Buffer) => events.push(JSON.parse(data.toString())));
  await waitFor(() => events[0]?.type === 'snapshot', { what: 'the snapshot' });
  await writeFile(barrier, '');
  assert.equal((await building).status, 'completed');
  await waitFor(() => events.some(({ line }) => line?.includes('LINK program')), { what: 'the output' });
  for (const { type, jobId: id, job: whole } of events) {
    if (type === 'output') assert.deepEqual([id, whole], [job?.id, undefined]);
  }
});

test('The admin routes show no key and no host path', async (t) => {
  const host = await startHost(t);
  const client = await pairedClient(t, host);
  const session = await client.openSession();
  const bundle = await client.bundle('kitchen.yaml', yaml('kitchen'));
  await session.build({ file: 'kitchen.yaml', bundle });
  const { body } = await host.ask('GET', 'state');
  const text = JSON.stringify(body);
  assert.ok(text.includes('kitchen.yaml') && text.includes(host.receiver.pin));
  assert.ok(!text.includes(host.base));
});

test('The admin routes use camelCase only, and expose no field of the internal records', async (t) => {
  const host = await startHost(t);
  const client = await pairedClient(t, host);
  const events: object[] = [];
  const socket = new WebSocket(`ws://${host.origin}/esphome-receiver/events`);
  t.after(() => socket.terminate());
  socket.on('message', (data: Buffer) => events.push(JSON.parse(data.toString())));
  const session = await client.openSession();
  await session.build({ file: 'kitchen.yaml', bundle: await client.bundle('kitchen.yaml', yaml('kitchen')) });
  const paths = ['state', 'peers', 'jobs', 'pairing/requests', 'usage', 'retention'];
  const answers = await Promise.all(paths.map((path) => host.ask('GET', path)));
  await waitFor(() => events.length > 3, { what: 'events' });
  const names = new Set<string>();
  JSON.stringify([answers.map(({ body }) => body), events], (name, value: unknown) => {
    names.add(name);
    return value;
  });
  assert.ok(names.has('dashboardId') && names.has('closesInMs') && names.has('progress'));
  assert.deepEqual(
    [...names].filter((name) => name.includes('_') && name !== client.dashboardId),
    [],
  );
  for (const internal of ['resultKey', 'requeued', 'bundle', 'attempt', 'publicKey', 'interrupted'])
    assert.ok(!names.has(internal), internal);
});

test('A page of another site and an unauthorized operator are refused, on routes and sockets', async (t) => {
  const host = await startHost(t, { authorize: (ctx) => ctx.get('x-admin') === 'yes' });
  assert.equal((await host.ask('GET', 'state')).status, 401);
  const url = `http://${host.origin}/esphome-receiver/state`;
  assert.equal((await fetch(url, { headers: { 'x-admin': 'yes' } })).status, 200);
  const foreign = { 'x-admin': 'yes', origin: 'https://evil.example' };
  assert.equal((await fetch(url, { headers: foreign })).status, 403);
  for (const [headers, code] of [
    [{}, 4401],
    [foreign, 4403],
  ] as const) {
    const socket = new WebSocket(`ws://${host.origin}/esphome-receiver/events`, { headers });
    const [closed] = (await once(socket, 'close')) as [number];
    assert.equal(closed, code);
  }
});

test('A body that is too large or not an object is refused', async (t) => {
  const host = await startHost(t);
  const url = `http://${host.origin}/esphome-receiver/pairing/requests/${'a'.repeat(32)}/approve`;
  for (const [body, status] of [
    ['[]', 400],
    ['{', 400],
    [`{"pin":"${'x'.repeat(70_000)}"}`, 413],
  ] as const) {
    assert.equal((await fetch(url, { method: 'POST', body })).status, status);
  }
});

test('Closing the receiver closes the event sockets, so that the host can end', async (t) => {
  const host = await startHost(t);
  const socket = new WebSocket(`ws://${host.origin}/esphome-receiver/events`);
  await once(socket, 'message');
  const closed = once(socket, 'close') as Promise<[number]>;
  await host.receiver.close();
  assert.deepEqual((await closed)[0], 1001);
});

test("A page is told of a request without the peer's key", async (t) => {
  const host = await startHost(t);
  const socket = new WebSocket(`ws://${host.origin}/esphome-receiver/events`);
  t.after(() => socket.terminate());
  const texts: string[] = [];
  socket.on('message', (data: Buffer) => texts.push(data.toString()));
  await once(socket, 'message');
  await pairedClient(t, host);
  await waitFor(() => texts.some((text) => text.includes('"approved"')), { what: 'the approval' });
  assert.ok(texts.some((text) => text.includes('"requested"')));
  assert.deepEqual(
    texts.filter((text) => /publicKey|"Buffer"/.test(text)),
    [],
  );
});

test('A page is told when a paired dashboard connects and disconnects', async (t) => {
  const host = await startHost(t);
  const client = await pairedClient(t, host);
  const socket = new WebSocket(`ws://${host.origin}/esphome-receiver/events`);
  t.after(() => socket.terminate());
  const events: { type: string }[] = [];
  socket.on('message', (data: Buffer) => events.push(JSON.parse(data.toString())));
  await once(socket, 'message');
  const told = (): object[] => events.filter(({ type }) => type === 'session');
  const session = await client.openSession();
  await waitFor(() => told().length === 1, { what: 'its coming' });
  await session.close();
  await waitFor(() => told().length === 2, { what: 'its going' });
  const { dashboardId } = client;
  assert.deepEqual(told(), [
    { type: 'session', dashboardId, connected: true },
    { type: 'session', dashboardId, connected: false },
  ]);
});

test('No spelling of a route bypasses authorization', async (t) => {
  const host = await startHost(t, { authorize: () => false });
  for (const path of ['state', 'pairing/open', 'peers', 'jobs']) {
    for (const prefix of [
      '/esphome-receiver',
      '/ESPHOME-RECEIVER',
      '/Esphome-Receiver',
      '//esphome-receiver',
    ]) {
      for (const method of ['GET', 'POST', 'HEAD', 'OPTIONS']) {
        for (const spelling of [
          `${prefix}/${path}`,
          `${prefix}/${path.toUpperCase()}`,
          `${prefix}/${path}/`,
        ]) {
          const { status } = await fetch(`http://${host.origin}${spelling}`, { method });
          assert.ok(status === 401 || status === 404, `${method} ${spelling}: ${status}`);
        }
      }
    }
  }
  assert.equal(host.receiver.pairing.closesInMs(), 0);
});

test('An upgrade to an unparsable URL is refused, and the host keeps running', async (t) => {
  const host = await startHost(t);
  for (const path of ['//a@b:c@[/', 'http://[', '/esphome-receiver/events']) {
    const socket = connect(Number(host.origin.split(':')[1]), '127.0.0.1');
    t.after(() => socket.destroy());
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: ${host.origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    const [answer] = (await once(socket, 'data')) as [Buffer];
    assert.match(answer.toString(), path.startsWith('/esphome') ? /^HTTP\/1.1 101/ : /^HTTP\/1.1 400/);
  }
  assert.equal((await host.ask('GET', 'state')).status, 200);
});

test('A request, peer or job that does not exist is answered as an error of the receiver', async (t) => {
  const host = await startHost(t);
  const id = 'nobody-here';
  for (const [method, path, message] of [
    ['POST', `pairing/requests/${id}/reject`, 'no such pairing request'],
    ['DELETE', `peers/${id}`, 'no such peer'],
    ['GET', `jobs/${id}`, 'no such job'],
    ['POST', `jobs/${id}/cancel`, 'no such job, or it has ended'],
  ] as const) {
    const expected = { status: 404, body: { error: 'NOT_FOUND', message } };
    assert.deepEqual(await host.ask(method, path), expected);
  }
});

test('A dryRun that is misspelt, or that the route lacks, is refused and removes nothing', async (t) => {
  const host = await startHost(t);
  const client = await pairedClient(t, host);
  const session = await client.openSession();
  await session.build({ file: 'hall.yaml', bundle: await client.bundle('hall.yaml', yaml('hall')) });
  await session.close();
  const configuration = `.esphome/.remote_builds/${client.dashboardId}/hall/config/hall.yaml`;
  const build = join(host.receiver.paths.resolveDataDir(configuration), 'build');
  for (const body of [
    ...[{ all: true, dry_run: true }, { all: true, dryrun: true }, { all: true, dryRun: 'yes' }, {}],
    ...[{ all: 1 }, { all: true, configuration }, { configuration: 5 }, { dashboardId: null }],
  ]) {
    const { status, body: answer } = await host.ask('POST', 'reset', body);
    assert.deepEqual([status, (answer as { error: string }).error], [400, 'OPTIONS'], JSON.stringify(body));
  }
  assert.equal((await host.ask('POST', 'sweep', { dry_run: true })).status, 400);
  assert.equal((await host.ask('POST', 'clean', { configuration, dryRun: true })).status, 400);
  assert.equal((await host.ask('PATCH', 'retention', { buildTtl: 5 })).status, 400);
  await access(build);

  const dry = await host.ask('POST', 'reset', { configuration, dryRun: true });
  assert.equal((dry.body as { dryRun: boolean }).dryRun, true);
  await access(build);
  assert.equal((await host.ask('POST', 'sweep', {})).status, 200);
  await access(build);
  assert.equal((await host.ask('POST', 'clean', { configuration })).status, 204);
  await assert.rejects(access(build), { code: 'ENOENT' });
  assert.equal((await host.ask('POST', 'clean', { configuration: 'kitchen.yaml' })).status, 409);
  assert.equal((await host.ask('POST', 'reset', { version: '1.0.0' })).status, 404);
  const { body: limits } = await host.ask('GET', 'retention');
  assert.equal((limits as { buildTtlMs: number }).buildTtlMs, 86_400_000);

  const peer = `peers/${client.dashboardId}`;
  assert.equal((await host.ask('DELETE', `${peer}?data=maybe`)).status, 400);
  assert.equal((await host.ask('DELETE', `${peer}?data=keep`)).status, 204);
  assert.equal((await host.ask('DELETE', peer)).status, 204, 'what was kept');
  assert.equal((await host.ask('DELETE', peer)).status, 404);
});

test('An error of the host below the prefix is answered by the host', async (t) => {
  const { receiver } = await startReceiver(t);
  const app = new Koa();
  app.silent = true;
  app.use(receiver.routes());
  app.use(() => {
    throw new ReceiverError('STORAGE', 'of the host');
  });
  const server = app.listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const response = await fetch(`http://127.0.0.1:${port}/esphome-receiver/nope`);
  assert.deepEqual([response.status, await response.text()], [500, 'Internal Server Error']);
});

test('With `peerLink: false`, dashboards can connect only at the port of `listen`', async (t) => {
  const whole = await startReceiver(t);
  const app = new Koa();
  whole.receiver.mount(app, { peerLink: false });
  const port = await serveApp(t, app);
  const elsewhere = await newClient(t, whole, 'elsewhere', port);
  await assert.rejects(elsewhere.offloader.preview(), { code: 'PROTOCOL' });
  const client = await newClient(t, whole);
  assert.equal((await client.offloader.preview()).pin, whole.receiver.pin);
});
