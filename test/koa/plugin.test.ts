/**
 * A whole receiver with the stand-in compiler: real sockets, processes and files. Covers src/index.ts, src/receiver.ts
 * and src/koa/offloader.ts.
 */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import promises, { readdir, readFile, stat } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { connect, type AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';

import Koa from 'koa';
import websockify from 'koa-websocket';
import { WebSocket } from 'ws';

import { createReceiver } from '../../src/index.js';
import { dial, unpackArtifacts } from '../../src/koa/offloader.js';
import { initiate } from '../../src/protocol/handshake.js';
import { standInEsphome } from '../../src/testing/index.js';
import { fakePython } from '../esphome/fake-python.js';
import { chunkFrames, headerFrame } from '../server/bundle-frames.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { newClient, pairedClient, startReceiver, yaml, type Whole } from '../support/whole.js';

test('A bundle is uploaded, compiled in its own directory, and its firmware is downloaded', async (t) => {
  const whole = await startReceiver(t);
  const { receiver } = whole;
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  assert.equal(session.receiver.esphomeVersion, '2026.10.0');
  const lines: string[] = [];
  const states: string[] = [];
  const result = await session.build({
    file: 'kitchen.yaml',
    bundle: await client.bundle('kitchen.yaml', yaml('kitchen')),
    onOutput: (line) => lines.push(line),
    onState: (state) => states.push(state),
  });
  assert.deepEqual([result.status, result.errorMessage], ['completed', '']);
  assert.deepEqual(states, ['queued', 'running', 'completed']);
  assert.ok(lines.some((line) => line.includes('stand-in')));

  const [job] = receiver.jobs.list();
  assert.ok(job);
  const remote = `.esphome/.remote_builds/${client.dashboardId}/kitchen/config/kitchen.yaml`;
  assert.equal(job.configuration, remote);
  const subtree = receiver.paths.resolveDataDir(remote);
  assert.ok((await stat(receiver.paths.resolveStoragePath(remote))).isFile());

  const { bytes: archive } = await session.downloadArtifacts(result.jobId);
  const unpacked = await unpackArtifacts(archive, join(whole.base, 'out'));
  const program = await readFile(unpacked.firmwarePath);
  assert.ok(program.equals(await readFile(join(subtree, 'build/kitchen/.pioenvs/kitchen/program'))));
  assert.equal((await stat(unpacked.firmwarePath)).mode & 0o111, 0o111);
  await nothingIsLeft(whole);
});

test('A bundle that is sent again gets the result of the earlier build at once, unless the cache is off', async (t) => {
  for (const resultCache of [true, false]) {
    const whole = await startReceiver(t, { resultCache });
    const client = await pairedClient(t, whole);
    const session = await client.openSession();
    const bundle = await client.bundle('kitchen.yaml', yaml('kitchen'));
    const first = await session.build({ file: 'kitchen.yaml', bundle });
    const lines: string[] = [];
    const states: string[] = [];
    const second = await session.build({
      ...{ file: 'kitchen.yaml', bundle },
      onOutput: (line) => lines.push(line),
      onState: (state) => states.push(state),
    });
    assert.equal(second.status, 'completed');
    assert.deepEqual(states, ['queued', 'running', 'completed']);
    const jobs = whole.receiver.jobs.list();
    assert.deepEqual(
      jobs.map(({ cached }) => cached),
      [false, resultCache],
    );
    const told = `The same bundle was built by job ${jobs[0]?.id}; reusing its result.\n`;
    assert.equal(lines.join('') === told, resultCache);
    const archives = await Promise.all([first, second].map(({ jobId }) => session.downloadArtifacts(jobId)));
    assert.deepEqual(archives[1]?.bytes, archives[0]?.bytes);
    await nothingIsLeft(whole);
  }
});

test("A bundle over the host's limits is refused, before its first chunk or as a bundle", async (t) => {
  const limits = [{ packedBytes: 10 }, { members: 1 }, { unpackedBytes: 20 }];
  const refused = [/oversized/, /more than 1 members/, /more than 20 bytes/];
  for (const [index, bundleLimits] of limits.entries()) {
    const whole = await startReceiver(t, { bundleLimits });
    const client = await pairedClient(t, whole);
    const session = await client.openSession();
    const bundle = await client.bundle('kitchen.yaml', yaml('kitchen'));
    const message = await session.build({ file: 'kitchen.yaml', bundle }).then(
      ({ errorMessage }) => errorMessage,
      (error: Error) => error.message,
    );
    assert.match(message, refused[index] as RegExp);
    await nothingIsLeft(whole);
  }
});

test('No line that a peer sees contains a host path', async (t) => {
  const whole = await startReceiver(t);
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const lines: string[] = [];
  for (const knobs of ['', 'exit=1', 'exit=2', 'elsewhere']) {
    const bundle = await client.bundle('kitchen.yaml', yaml('kitchen', knobs));
    const result = await session.build({
      file: 'kitchen.yaml',
      bundle,
      onOutput: (line) => lines.push(line),
    });
    lines.push(result.errorMessage);
  }
  assert.ok(lines.length > 10);
  assert.deepEqual(
    lines.filter((line) => line.includes(whole.base)),
    [],
  );
});

test('A compile that succeeds but wrote to another directory fails, and the error says so', async (t) => {
  const whole = await startReceiver(t);
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  for (const knob of ['elsewhere', 'no-sidecar', 'no-firmware', 'link-out']) {
    const bundle = await client.bundle(`${knob}.yaml`, yaml('kitchen', knob));
    const result = await session.build({ file: `${knob}.yaml`, bundle });
    assert.equal(result.status, 'failed', knob);
    assert.match(result.errorMessage, /wrote elsewhere/, knob);
    assert.equal(whole.receiver.jobs.list().at(-1)?.failureReason, 'wrote_elsewhere', knob);
  }
});

test('A bundle that is not an archive is acknowledged by its hash, fails as a bundle, and leaves no file', async (t) => {
  const whole = await startReceiver(t);
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const result = await session.build({ file: 'kitchen.yaml', bundle: Buffer.from('no archive at all') });
  assert.equal(result.status, 'failed');
  assert.equal(whole.receiver.jobs.list()[0]?.failureReason, 'bundle');
  await nothingIsLeft(whole);
});

test('A manifest that names another file fails the job, and that file is not built', async (t) => {
  const whole = await startReceiver(t);
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const bundle = await client.bundle('other.yaml', yaml('other'));
  const result = await session.build({ file: 'kitchen.yaml', bundle });
  assert.equal(result.status, 'failed');
  await assert.rejects(stat(join(whole.receiver.paths.buildsDir, client.dashboardId)), { code: 'ENOENT' });
});

test('A file name that looks like a traversal is refused before its first chunk', async (t) => {
  const whole = await startReceiver(t);
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const bundle = await client.bundle('kitchen.yaml', yaml('kitchen'));
  for (const file of [
    '../kitchen.yaml',
    '.esphome.yaml',
    'con.yaml',
    'a/b.yaml',
    'kitchen.txt',
    'secrets.yaml',
  ]) {
    await assert.rejects(session.build({ file, bundle }), { code: 'REJECTED' }, file);
  }
  assert.deepEqual(whole.receiver.jobs.list(), []);
});

test('Two peers with the same device name build at the same time, each in its own directory', async (t) => {
  const whole = await startReceiver(t, { slots: 2 });
  const clients = await Promise.all([pairedClient(t, whole, 'one'), pairedClient(t, whole, 'two')]);
  const programs = await Promise.all(
    clients.map(async (client, index) => {
      const session = await client.openSession();
      const bundle = await client.bundle(
        'kitchen.yaml',
        `${yaml('kitchen')}logger: {level: ${index === 0 ? 'INFO' : 'DEBUG'}}\n`,
      );
      const { status, jobId } = await session.build({ file: 'kitchen.yaml', bundle });
      assert.equal(status, 'completed');
      const { bytes } = await session.downloadArtifacts(jobId);
      const { firmwarePath } = await unpackArtifacts(bytes, join(whole.base, `out${index}`));
      return readFile(firmwarePath, 'utf8');
    }),
  );
  assert.notEqual(programs[0], programs[1]);
});

test('A cancelled build ends in the state cancelled and leaves no process', async (t) => {
  const whole = await startReceiver(t);
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const bundle = await client.bundle('kitchen.yaml', yaml('kitchen', 'sleep=60000 fork'));
  const building = session.build({
    file: 'kitchen.yaml',
    bundle,
    jobId: 'aaaaaaaaaaaa',
    onOutput: (line) => line.includes('[1/') && session.cancel('aaaaaaaaaaaa'),
  });
  assert.equal((await building).status, 'cancelled');
  assert.equal(whole.receiver.jobs.list()[0]?.state, 'cancelled');
});

test('A revoked peer loses its session and its jobs, and cannot reconnect', async (t) => {
  const whole = await startReceiver(t);
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const bundle = await client.bundle('kitchen.yaml', yaml('kitchen', 'sleep=60000'));
  const lost = assert.rejects(session.build({ file: 'kitchen.yaml', bundle }), { code: 'PROTOCOL' });
  await waitFor(() => whole.receiver.jobs.list()[0]?.state === 'running', { what: 'the build' });
  assert.equal(await whole.receiver.peers.revoke(client.dashboardId), true);
  await lost;
  assert.deepEqual(whole.receiver.jobs.list(), []);
  assert.deepEqual(await whole.receiver.hostPaths.listRemote(), []);
  await assert.rejects(stat(join(whole.receiver.paths.buildsDir, client.dashboardId)), { code: 'ENOENT' });
  await assert.rejects(client.openSession(), { code: 'REJECTED' });
  assert.equal(await whole.receiver.peers.revoke(client.dashboardId), false);
});

test('Closing the receiver notifies the peer, stops its build, and leaves no process', async (t) => {
  const whole = await startReceiver(t);
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const bundle = await client.bundle('kitchen.yaml', yaml('kitchen', 'sleep=60000'));
  const lost = assert.rejects(session.build({ file: 'kitchen.yaml', bundle }), { code: 'PROTOCOL' });
  await waitFor(() => whole.receiver.jobs.list()[0]?.state === 'running', { what: 'the build' });
  await whole.receiver.close();
  await lost;
  assert.equal(await session.ended, 'server_shutting_down');
});

test('A receiver that fails to start leaves nothing running, and the next one resumes its jobs', async (t) => {
  const whole = await startReceiver(t);
  const { options } = whole;
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const bundle = await client.bundle('kitchen.yaml', yaml('kitchen', 'sleep=60000'));
  const lost = assert.rejects(session.build({ file: 'kitchen.yaml', bundle }), { code: 'PROTOCOL' });
  await waitFor(() => whole.receiver.jobs.list()[0]?.state === 'running', { what: 'the build' });
  await whole.receiver.close();
  await lost;

  // A late step of the start fails, when the job has already resumed.
  const { devicesDir } = whole.receiver.paths.layout;
  const { opendir: real } = promises;
  const failing = t.mock.method(promises, 'opendir', async (...args: unknown[]) => {
    if (args[0] === devicesDir) throw new Error('the disk has a fault');
    return Reflect.apply(real, promises, args) as never;
  });
  syncBuiltinESMExports();
  await assert.rejects(createReceiver(options), { message: 'the disk has a fault' });
  failing.mock.restore();
  syncBuiltinESMExports();

  const next = await createReceiver(options);
  t.after(() => next.close());
  await waitFor(() => next.jobs.list()[0]?.state === 'running', { what: 'the same build' });
});

test('The peer link works on the port of a host that already uses koa-websocket', async (t) => {
  const whole = await startReceiver(t);
  const app = websockify(new Koa());
  whole.receiver.mount(app);
  app.use((ctx) => {
    ctx.body = ctx.esphomePaths.resolveStoragePath('kitchen.yaml');
  });
  const server = app.listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const client = await pairedClient(t, whole, 'shared', port);
  const session = await client.openSession();
  const bundle = await client.bundle('kitchen.yaml', yaml('kitchen'));
  assert.equal((await session.build({ file: 'kitchen.yaml', bundle })).status, 'completed');
  const shown = await (await fetch(`http://127.0.0.1:${port}/`)).text();
  assert.equal(shown, whole.receiver.paths.resolveStoragePath('kitchen.yaml'));
});

test('A host with its own server passes upgrades on, and keeps those of other paths', async (t) => {
  const whole = await startReceiver(t);
  const server = createServer();
  const foreign: string[] = [];
  server.on('upgrade', (request, socket, head) => {
    if (whole.receiver.handleUpgrade(request, socket, head)) return;
    foreign.push(request.url ?? '');
    socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
  });
  server.listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const client = await newClient(t, whole, 'own-server', port);
  assert.equal((await client.offloader.preview()).pin, whole.receiver.pin);
  const stranger = new WebSocket(`ws://127.0.0.1:${port}/other`);
  await once(stranger, 'error');
  assert.deepEqual(foreign, ['/other']);
});

test("Another path on the receiver's port is 404, as a page and as a socket", async (t) => {
  const { port } = await startReceiver(t);
  assert.equal((await fetch(`http://127.0.0.1:${port}/`)).status, 404);
  const socket = new WebSocket(`ws://127.0.0.1:${port}/other`);
  const [error] = (await once(socket, 'error')) as [Error];
  assert.match(error.message, /404/);
});

test('Small bundles sent back to back, without waiting for an answer, are each acknowledged once', async (t) => {
  const whole = await startReceiver(t);
  const client = await pairedClient(t, whole);
  const { channel } = await initiate(await dial({ host: '127.0.0.1', port: whole.port }), client.identity, {
    intent: 'peer_link',
    hello: { dashboardId: client.dashboardId },
  });
  t.after(() => channel.destroy());
  const acks: (readonly [string, string | undefined])[] = [];
  channel.open({
    frame(parsed) {
      if (parsed.kind === 'frame' && parsed.frame.type === 'submit_job_ack')
        acks.push([parsed.frame.job_id, parsed.frame.reason]);
    },
    malformed: () => assert.fail('a malformed frame'),
    closed() {},
  });
  const bundle = await client.bundle('kitchen.yaml', yaml('kitchen'));
  const ids = Array.from({ length: 100 }, (_, index) => `job-${index}`);
  for (const id of ids) {
    const names = { job_id: id, target: 'clean', configuration_filename: 'kitchen.yaml' };
    for (const frame of [headerFrame(bundle, names), ...chunkFrames(bundle, { job_id: id })])
      channel.send(frame as never);
  }
  await waitFor(() => acks.length === ids.length, { deadlineMs: 60_000, what: 'all answers' });
  // Each waits for its own record, so two can change places.
  assert.deepEqual(
    acks.filter(([, reason]) => reason !== undefined),
    [],
  );
  assert.deepEqual(new Set(acks.map(([id]) => id)), new Set(ids));
});

test('A stranger that keeps a refused upgrade half open does not keep the receiver from closing', async (t) => {
  const { receiver, port } = await startReceiver(t);
  const sockets = await Promise.all(
    Array.from({ length: 20 }, async () => {
      const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
      t.after(() => socket.destroy());
      await once(socket, 'connect');
      socket.write('GET /other HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
      await once(socket, 'data');
      return socket;
    }),
  );
  assert.equal(sockets.length, 20);
  await receiver.close();
});

test('Another version is installed and used if provisioning is on; if it is off, the client is told to build itself', async (t) => {
  const [program, script] = standInEsphome;
  const { path } = await fakePython(await tempDir(t), {
    ...{ name: 'python3.14', version: '3.14.1', prints: 'Version: 2026.9.1' },
    esphome: `exec '${program}' '${script}' "$@"`,
  });
  const environment = { PATH: `${dirname(path)}:/usr/bin:/bin`, PYENV_ROOT: '/nonexistent' };
  for (const provisionVersions of [true, false]) {
    const whole = await startReceiver(t, { environment, provisionVersions });
    const client = await pairedClient(t, whole);
    assert.equal((await client.offloader.preview()).autoProvisionSupported, provisionVersions);
    const session = await client.openSession();
    const lines: string[] = [];
    const result = await session.build({
      ...{ file: 'kitchen.yaml', bundle: await client.bundle('kitchen.yaml', yaml('kitchen')) },
      ...{ targetVersion: '2026.9.1', onOutput: (line: string) => lines.push(line) },
    });
    const { status, failureReason } = result;
    const [job] = whole.receiver.jobs.list();
    if (provisionVersions) {
      assert.deepEqual([status, job?.esphomeVersion], ['completed', '2026.9.1'], result.errorMessage);
      assert.match(lines.join(''), /^Installing ESPHome 2026\.9\.1/);
      assert.deepEqual(await readdir(whole.receiver.paths.layout.venvsDir), ['esphome-2026.9.1']);
    } else {
      assert.deepEqual([status, failureReason], ['failed', 'provision']);
      assert.equal(
        result.errorMessage,
        'this build server has ESPHome 2026.10.0 and cannot install "2026.9.1"',
      );
    }
  }
});

test('A port in use is reported as such, and options are checked at creation', async (t) => {
  const whole = await startReceiver(t);
  await assert.rejects(whole.receiver.listen(whole.port, '127.0.0.1'), { code: 'STATE', message: /in use/ });
  await whole.receiver.close();
  await assert.rejects(whole.receiver.listen(0, '127.0.0.1'), { code: 'STATE', message: /closed/ });
  const { receiver } = await startReceiver(t);
  const late = assert.rejects(receiver.listen(0, '127.0.0.1'), { code: 'STATE', message: /closed/ });
  await Promise.all([receiver.close(), late]);
  const configDir = await tempDir(t);
  const limits = [{ depht: 3 }, { members: 0 }, { ratio: 1.5 }, { packedBytes: 2 ** 27 + 1 }, 5];
  for (const wrong of [
    ...[
      { slots: 0 },
      { absentPeerGraceMs: 9_999 },
      { prefix: 'builds' },
      { esphome: 5 },
      { unknown: true },
      { log: {} },
      { resultCache: 1 },
      { connectBack: 'yes' },
    ],
    ...[{ provisionVersions: 'yes' }, { maxVersions: 0 }],
    ...limits.map((bundleLimits) => ({ bundleLimits })),
    ...[{ strangers: 3 }, { handshakesPerSecond: 0 }, { sockets: 1.5 }, { crowd: 9 }].map(
      (connectionLimits) => ({ connectionLimits }),
    ),
  ]) {
    await assert.rejects(createReceiver({ configDir, ...wrong } as never), { code: 'OPTIONS' });
  }
  assert.deepEqual(await readdir(configDir), []);
});

test("A job that hangs, one that prints too much and one too many are each stopped at the host's limit", async (t) => {
  const whole = await startReceiver(t, {
    silenceTimeoutMs: 1_000,
    maxOutputBytes: 65_536,
    maxJobsPerPeer: 1,
  });
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const lines: string[] = [];
  const build = async (name: string, knobs: string): Promise<string> => {
    const bundle = await client.bundle(`${name}.yaml`, yaml(name, knobs));
    const onOutput = (line: string): void => void lines.push(line);
    return (await session.build({ file: `${name}.yaml`, bundle, onOutput })).errorMessage;
  };
  const hangs = build('hangs', 'sleep=60000');
  await waitFor(() => whole.receiver.jobs.list().length === 1);
  assert.match(await build('late', ''), /^a dashboard can have at most 1 waiting or running jobs;/);
  assert.match(await hangs, /^stopped: it printed nothing for 1 second/);
  lines.length = 0;
  assert.equal(await build('prints', 'lines=10000'), '');
  assert.equal(lines.filter((line) => line.startsWith('[output limit reached')).length, 1);
  assert.match(lines.at(-1) ?? '', /Successfully compiled program/);
  assert.ok(lines.length < 5_000, `${lines.length} lines`);
});

async function nothingIsLeft({ receiver }: Whole): Promise<void> {
  const { uploadsDir, trashDir } = receiver.paths.layout;
  await waitFor(async () => (await readdir(uploadsDir)).length + (await readdir(trashDir)).length === 0, {
    what: 'an empty staging area',
  });
}

/** Compile-time check: a host's context has typed `esphomePaths`. */
export const typed = (ctx: Koa.Context, t: TestContext): Promise<unknown> =>
  t ? ctx.esphomePaths.loadStorage('kitchen.yaml') : Promise.resolve();
