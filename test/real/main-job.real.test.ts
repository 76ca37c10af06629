/** The main job: an unmodified Device Builder, our receiver and the real ESPHome, on loopback. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { createReceiver, type JobView } from '../../src/index.js';
import { stderrLog } from '../../src/cli/report.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { startOffloader } from './device-builder.js';
import { realEsphome } from './support.js';

const kitchen = new URL('../../examples/configs/kitchen.yaml', import.meta.url);
const program = (build: string, name: string): string => join(build, name, '.pioenvs', name, 'program');

const [esphome] = await realEsphome();
const senderDir = await tempDir({ after });
await cp(kitchen, join(senderDir, 'kitchen.yaml'));
const hall = (await readFile(kitchen, 'utf8')).replaceAll('kitchen', 'hall');
await writeFile(join(senderDir, 'hall.yaml'), hall);
const receiver = await createReceiver({ configDir: await tempDir({ after }), esphome, log: stderrLog });
after(() => receiver.close());
const port = await receiver.listen(0, '127.0.0.1');
const offloader = await startOffloader({ after }, senderDir);

test('Device Builder sees our fingerprint, asks to pair while the window is open, and connects once approved', async () => {
  const seen = await offloader.previewPair(port);
  assert.deepEqual(seen, { pin_sha256: receiver.pin, requires_pairing_key: false });
  await assert.rejects(offloader.requestPair({ port, pin: receiver.pin }), /window/i);

  receiver.pairing.open();
  await offloader.requestPair({ port, pin: receiver.pin });
  const [request] = receiver.pairing.requests();
  assert.ok(request);
  await assert.rejects(receiver.pairing.approve(request.dashboardId, 'f'.repeat(64)), { code: 'PAIRING' });
  await receiver.pairing.approve(request.dashboardId, request.pin);
  receiver.pairing.close();

  const pairing = await offloader.waitConnected(receiver.pin);
  assert.equal(pairing.status, 'approved');
  assert.equal(pairing.esphome_version, '2026.10.0');
  assert.deepEqual(
    receiver.peers.list().map(({ connected }) => connected),
    [true],
  );
});

test('A compile ends completed there and here, and both have the same program, which runs', async () => {
  const job = await offloader.waitJob(await offloader.compile('kitchen.yaml'));
  assert.equal(job.source, 'remote');
  assert.equal(job.status, 'completed', job.error ?? '');
  const ours = newestJob();
  assert.equal(ours.state, 'completed');
  assert.equal(ours.esphomeVersion, '2026.10.0');

  const sidecar = receiver.paths.resolveStoragePath(ours.configuration);
  assert.ok((await stat(sidecar)).isFile());
  const theirs = program(join(offloader.configDir, '.esphome', 'build'), 'kitchen');
  const here = program(join(receiver.paths.resolveDataDir(ours.configuration), 'build'), 'kitchen');
  assert.ok((await readFile(theirs)).equals(await readFile(here)));
  assert.match(await runFor(theirs, 1500), /The kitchen is alive/);
});

test('The same again is not compiled: the client gets the same program, and our record says where it is from', async () => {
  const theirs = program(join(offloader.configDir, '.esphome', 'build'), 'kitchen');
  const before = await readFile(theirs);
  const id = await offloader.compile('kitchen.yaml');
  const job = await offloader.waitJob(id);
  assert.equal(job.status, 'completed', job.error ?? '');
  assert.equal(newestJob().cached, true);
  assert.match(offloader.outputOf(id), /reusing its result/);
  assert.ok((await readFile(theirs)).equals(before));
});

test('With another comment in the YAML it is compiled, and warm: ninja finds nothing to do', async () => {
  const yaml = join(offloader.configDir, 'kitchen.yaml');
  await writeFile(yaml, `${await readFile(yaml, 'utf8')}# another comment\n`);
  const id = await offloader.compile('kitchen.yaml');
  const job = await offloader.waitJob(id);
  assert.equal(job.status, 'completed', job.error ?? '');
  assert.equal(newestJob().cached, false);
  assert.match(offloader.outputOf(id), /ninja: no work to do/);
});

test('A cancel in the middle ends the job as cancelled on both sides and leaves no process', async () => {
  const id = await offloader.compile('hall.yaml');
  await offloader.waitOutput(id, /Compiling app/);
  const { configuration } = newestJob();
  const subtree = receiver.paths.resolveDataDir(configuration);
  await waitFor(async () => (await processesIn(subtree)).length > 1 || undefined, {
    deadlineMs: 20_000,
    what: 'the compilers',
  });
  await offloader.cancel(id);
  assert.equal((await offloader.waitJob(id)).status, 'cancelled');
  const ended = await waitFor(() => (newestJob().finishedAt === null ? undefined : newestJob()), {
    deadlineMs: 20_000,
    what: 'the end of our job',
  });
  assert.equal(ended.state, 'cancelled');
  assert.deepEqual(await processesIn(subtree), []);
});

test('After the cancel the same device builds, and gets its own program', async () => {
  const id = await offloader.compile('hall.yaml');
  const job = await offloader.waitJob(id);
  assert.equal(job.status, 'completed', job.error ?? '');
  const theirs = program(join(offloader.configDir, '.esphome', 'build'), 'hall');
  assert.match(await runFor(theirs, 1500), /The hall is alive/);
});

test('A configuration that is invalid fails with our words, and the log says where', async () => {
  await writeFile(
    join(offloader.configDir, 'broken.yaml'),
    'esphome: {name: broken}\nhost:\nlogger: {level: LOUD}\n',
  );
  const id = await offloader.compile('broken.yaml');
  const job = await offloader.waitJob(id);
  assert.equal(job.status, 'failed');
});

function newestJob(): JobView {
  const job = receiver.jobs.list().at(-1);
  assert.ok(job);
  return job;
}

/** Pids of processes whose data directory is this one. */
async function processesIn(dataDir: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const environ = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
    if (environ.split('\0').includes(`ESPHOME_DATA_DIR=${dataDir}`)) found.push(pid);
  }
  return found;
}

/** What a program prints in its first moments; it is then ended. */
function runFor(file: string, ms: number): Promise<string> {
  return new Promise((resolve) => {
    execFile(file, { timeout: ms }, (_ended, stdout, stderr) => resolve(stdout + stderr));
  });
}
