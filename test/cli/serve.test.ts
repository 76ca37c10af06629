/**
 * `serve` as a program: its output for programs and people, one pairing by key, and its exit codes. Covers
 * src/cli/report.ts.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { createOffloader, dial, loadOffloaderIdentity, makeBundle } from '../../src/koa/offloader.js';
import { startChild } from '../support/child.js';
import { freePort } from '../support/free-port.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { yaml } from '../support/whole.js';
import { event, main, serve, serveWords } from './serve-child.js';

/** A preloaded module: timers of 15 minutes fire after half a second. */
const hurry = `data:text/javascript;base64,${Buffer.from(
  `
  const real = setTimeout;
  globalThis.setTimeout = (act, ms, ...rest) => real(act, ms > 890_000 && ms <= 900_000 ? 500 : ms, ...rest);
`,
).toString('base64')}`;

test('With --json, every event is one object: listening, the key, the pairing, the jobs; SIGTERM ends with 0', async (t) => {
  const { child } = await serve(t, '--json');
  const listening = await event(child, 'listening');
  const { key } = await event(child, 'pairing_key');
  assert.match(String(key), /^(?:[A-Z2-9]{4}-){3}[A-Z2-9]{4}$/);
  assert.match(String(listening['pin']), /^[0-9a-f]{64}$/);

  const home = await tempDir(t);
  const identity = await loadOffloaderIdentity(home);
  const where = { host: '127.0.0.1', port: Number(listening['port']) };
  const offloader = createOffloader({ identity, connect: () => dial(where), label: 'by key' });
  const { pin, requiresPairingKey } = await offloader.preview();
  assert.equal(pin, listening['pin']);
  assert.equal(requiresPairingKey, true);
  await assert.rejects(offloader.requestPairing({ pin, pairingKey: 'AAAA-AAAA-AAAA-AAAA' }), {
    code: 'REJECTED',
  });
  assert.equal(await offloader.requestPairing({ pin, pairingKey: String(key) }), 'approved');
  assert.deepEqual(await event(child, 'paired'), {
    event: 'paired',
    dashboardId: identity.dashboardId,
    label: 'by key',
    pin: (await event(child, 'paired'))['pin'],
  });

  assert.equal(
    (await offloader.preview()).requiresPairingKey,
    true,
    'it is a server of this kind, paired or not',
  );

  const session = await offloader.openSession({ pin });
  await mkdir(join(home, 'yaml'));
  await writeFile(join(home, 'yaml', 'kitchen.yaml'), yaml('kitchen', 'sleep=60000'));
  const { bytes } = await makeBundle({ configDir: join(home, 'yaml'), file: 'kitchen.yaml' });
  const lost = assert.rejects(session.build({ file: 'kitchen.yaml', bundle: bytes }), { code: 'PROTOCOL' });
  await child.printed(/"event":"job".*"state":"running"/, { deadlineMs: 20_000 });
  assert.equal(await child.stop(), 0);
  assert.equal(await session.ended, 'server_shutting_down');
  await lost;
  for (const line of child
    .output()
    .split('\n')
    .filter((text) => text.startsWith('{')))
    JSON.parse(line);
});

test('As text, it prints pictures, their names, the full fingerprint and the key', async (t) => {
  const { child } = await serve(t, '--connect-back');
  await child.printed(/Pairing key: (?:[A-Z2-9]{4}-){3}[A-Z2-9]{4}/, { deadlineMs: 20_000 });
  assert.match(child.output(), /(?:[0-9a-f]{2} ){31}[0-9a-f]{2}/);
  assert.equal(await child.stop(), 0);
  assert.doesNotMatch(child.output(), /in time/);
});

test('Without a pairing within 15 minutes, it prints a message and exits with 1; the next start has another key', async (t) => {
  const directory = await tempDir(t);
  const keys = new Set<unknown>();
  for (let n = 0; n < 2; n += 1) {
    const words = [...serveWords(directory), '--json'];
    const child = await startChild(t, [
      process.execPath,
      '--import',
      hurry,
      '--import',
      'tsx',
      main,
      ...words,
    ]);
    keys.add((await event(child, 'pairing_key'))['key']);
    await event(child, 'pairing_lapsed');
    assert.equal(await child.ended, 1);
  }
  assert.equal(keys.size, 2);
});

test('With --announce on loopback only, nothing is announced, the log says so, and stdout is unchanged', async (t) => {
  const { child } = await serve(t, '--json', '--announce');
  await event(child, 'listening');
  await child.printed(/warn receiver not announced: it listens on loopback only/);
  assert.equal(await child.stop(), 0);
});

test('An account whose home directory does not exist can serve', async (t) => {
  const directory = join(await tempDir(t), 'new');
  const env = { ...process.env, HOME: '/nonexistent' };
  const words = [process.execPath, '--import', 'tsx', main, ...serveWords(directory), '--json'] as const;
  const child = await startChild(t, words, { env });
  await event(child, 'listening');
  assert.equal(await child.stop(), 0);
});

test('A reader of the output that leaves ends neither the server nor its work', async (t) => {
  const directory = join(await tempDir(t), 'new');
  const words = ['--import', 'tsx', main, ...serveWords(directory), '--json'];
  const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(() => child.kill('SIGKILL'));
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  const lineOf = (name: string): string | undefined =>
    new RegExp(`^.*"event":"${name}".*$`, 'm').exec(output)?.[0];
  const listening = await waitFor(() => lineOf('listening'), { deadlineMs: 20_000, what: 'the port' });
  const key = await waitFor(() => lineOf('pairing_key'), { deadlineMs: 20_000, what: 'the key' });
  child.stdout.destroy();
  child.stderr.destroy();

  const { port, pin } = JSON.parse(listening) as { port: number; pin: string };
  const identity = await loadOffloaderIdentity(await tempDir(t));
  const connect = () => dial({ host: '127.0.0.1', port });
  const offloader = createOffloader({ identity, connect, label: 'x' });
  const { key: pairingKey } = JSON.parse(key) as { key: string };
  assert.equal(await offloader.requestPairing({ pin, pairingKey }), 'approved');
  const session = await offloader.openSession({ pin });
  await session.close();
  assert.equal((await offloader.preview()).pin, pin);
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  assert.deepEqual(await ended, [0, null]);
});

test('With --admin, an operator on this machine opens the window for a second dashboard, and sees the state', async (t) => {
  const admin = await freePort();
  const { child } = await serve(t, '--json', '--admin', String(admin));
  const listening = await event(child, 'listening');
  await event(child, 'pairing_key');
  const at = `http://127.0.0.1:${admin}/esphome-receiver`;
  const state = (await (await fetch(`${at}/state`)).json()) as Record<string, unknown>;
  assert.equal(state['pin'], listening['pin']);
  assert.equal((await fetch(`${at}/pairing/open`, { method: 'POST' })).status, 200);
  assert.equal((await fetch(`${at}/usage`)).status, 200);
  assert.equal((await fetch(`http://127.0.0.1:${admin}/remote-build/peer-link`)).status, 404);
  assert.equal(await child.stop(), 0);
});
