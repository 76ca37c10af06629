/** Another ESPHome than the host's, with real releases, the real pip and the real Device Builder. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, readFile, readdir, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

import type { EsphomeCommand } from '../../src/esphome/command.js';
import { createReceiver, type JobView, type Receiver, type ReceiverOptions } from '../../src/index.js';
import { unpackArtifacts } from '../../src/koa/offloader.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { pairedClient, type Whole } from '../support/whole.js';
import { startOffloader } from './device-builder.js';
import { esphomeVersion, olderEsphome, olderVersion, realEsphome } from './support.js';

const kitchen = new URL('../../examples/configs/kitchen.yaml', import.meta.url);
const releases = new Map([
  [esphomeVersion, await realEsphome()],
  [olderVersion, await olderEsphome()],
]);

/** A receiver that listens. The real releases but its own are there as if it had installed them before. */
async function start(t: Cleanups, own: string, options: Partial<ReceiverOptions> = {}): Promise<Whole> {
  const base = await tempDir(t);
  const configDir = join(base, 'config');
  const venvsDir = join(configDir, '.esphome', '.remote_builds', '.receiver', 'venvs');
  for (const [version, [program]] of releases) {
    if (version === own) continue;
    const place = join(venvsDir, `esphome-${version}`);
    await mkdir(place, { recursive: true });
    await symlink(dirname(dirname(program)), join(place, 'ready'));
  }
  const esphome = releases.get(own) as EsphomeCommand;
  const wishes = { configDir, esphome, ...options };
  const receiver = await createReceiver(wishes);
  t.after(() => receiver.close());
  assert.equal(receiver.paths.layout.venvsDir, venvsDir);
  return { receiver, options: wishes, base, port: await receiver.listen(0, '127.0.0.1') };
}

test('A job is built with the older release that it asks for, by a receiver that has a newer one', async (t) => {
  const whole = await start(t, esphomeVersion);
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const { esphomeVersion: shown, autoProvisionSupported } = session.receiver;
  assert.deepEqual([shown, autoProvisionSupported], [esphomeVersion, true]);
  const text = await readFile(kitchen, 'utf8');
  const wish = {
    file: 'kitchen.yaml',
    bundle: await client.bundle('kitchen.yaml', text),
    skipBootloader: true,
  };
  const result = await session.build({ ...wish, targetVersion: olderVersion });
  assert.equal(result.status, 'completed', result.errorMessage);
  const job = newestJob(whole.receiver);
  assert.equal(job.esphomeVersion, olderVersion);

  const out = join(whole.base, 'out');
  const { bytes } = await session.downloadArtifacts(result.jobId);
  const { firmwarePath, storage } = await unpackArtifacts(bytes, out);
  assert.equal(storage.esphomeVersion, olderVersion);
  assert.match(await runFor(firmwarePath, 1_500), /The kitchen is alive/);
});

test('A real pip that is cancelled in the middle leaves neither a process nor a directory', async (t) => {
  const whole = await start(t, esphomeVersion);
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const lines: string[] = [];
  const leave = new AbortController();
  const result = session.build({
    ...{ file: 'kitchen.yaml', bundle: await client.bundle('kitchen.yaml', await readFile(kitchen, 'utf8')) },
    ...{ targetVersion: '2026.8.2', signal: leave.signal, onOutput: (line: string) => lines.push(line) },
  });
  const { venvsDir } = whole.receiver.paths.layout;
  await waitFor(() => lines.length > 2, { deadlineMs: 60_000, what: "pip's first lines" });
  assert.match(lines[0] ?? '', /^Installing ESPHome 2026\.8\.2/);
  assert.ok((await pipsIn(venvsDir)).length > 0);
  leave.abort();
  await result.catch(() => {});
  await waitFor(() => newestJob(whole.receiver).finishedAt !== null, { what: 'the end of the job' });
  assert.equal(newestJob(whole.receiver).state, 'cancelled');
  assert.deepEqual(await pipsIn(venvsDir), []);
  assert.deepEqual(await readdir(venvsDir), [`esphome-${olderVersion}`]);
});

test('Device Builder gets its own version from a receiver with another; where that is off it builds by itself', async (t) => {
  const senderDir = await tempDir(t);
  await cp(kitchen, join(senderDir, 'kitchen.yaml'));
  const dashboard = await startOffloader(t, senderDir);
  for (const provisionVersions of [true, false]) {
    const { receiver, port } = await start(t, olderVersion, { provisionVersions });
    receiver.pairing.open();
    await dashboard.requestPair({ port, pin: receiver.pin });
    const [request] = receiver.pairing.requests();
    assert.ok(request);
    await receiver.pairing.approve(request.dashboardId, request.pin);
    const pairing = await dashboard.waitConnected(receiver.pin);
    assert.deepEqual(
      [pairing.esphome_version, pairing.auto_provision_supported],
      [olderVersion, provisionVersions],
    );

    const done = await dashboard.waitJob(await dashboard.compile('kitchen.yaml'));
    assert.equal(done.status, 'completed', done.error ?? '');
    const ours = newestJob(receiver);
    assert.equal(ours.targetVersion, esphomeVersion);
    const { state, failureReason, esphomeVersion: used } = ours;
    if (provisionVersions)
      assert.deepEqual([state, used, done.source], ['completed', esphomeVersion, 'remote']);
    else assert.deepEqual([state, failureReason, done.source], ['failed', 'provision', 'local']);
    await dashboard.unpair(receiver.pin);
    await receiver.close();
  }
});

function newestJob(receiver: Receiver): JobView {
  const job = receiver.jobs.list().at(-1);
  assert.ok(job);
  return job;
}

/** Pids of what runs from below a directory. */
async function pipsIn(directory: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const words = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (words.includes(directory)) found.push(pid);
  }
  return found;
}

/** What a program prints in its first moments; it is then ended. */
function runFor(file: string, ms: number): Promise<string> {
  return new Promise((resolve) => {
    execFile(file, { timeout: ms }, (_ended, stdout, stderr) => resolve(stdout + stderr));
  });
}
