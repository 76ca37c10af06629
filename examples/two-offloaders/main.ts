/**
 * Two dashboards with a device of the same name send it to one build server at the same time, and each gets its own
 * firmware: every build has a directory of its own, one for each dashboard and device.
 *
 *     npx tsx examples/two-offloaders/main.ts [--once] [--esphome CMD]
 *
 * It works in a temporary directory and leaves nothing behind. It ends by itself, with or without `--once`.
 */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';

import { createReceiver, isReceiverError, type Receiver } from 'koa-esphome-receiver';
import {
  createOffloader,
  dial,
  loadOffloaderIdentity,
  makeBundle,
  unpackArtifacts,
} from 'koa-esphome-receiver/offloader';
import { anEsphome } from '../start/an-esphome.js';
import { readArgs } from '../start/read-args.js';
import { runFor } from '../start/run-for.js';

const host = '127.0.0.1';
const file = 'kitchen.yaml';
const places = ['at home', 'in the office'];
/** How long each program runs. */
const listenMs = 1_500;

interface Built {
  readonly place: string;
  readonly directory: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly says: string;
}

async function main(esphomeOption: string | undefined): Promise<void> {
  console.log('Looking for ESPHome');
  const esphome = await anEsphome(esphomeOption);
  const work = await mkdtemp(join(tmpdir(), 'two-offloaders-'));
  try {
    const configDir = join(work, 'server');
    await mkdir(configDir);
    const receiver = await createReceiver({ configDir, esphome, slots: 2 });
    try {
      const port = await receiver.listen(0, host);
      let most = 0;
      receiver.subscribe(() => (most = Math.max(most, runningNow(receiver))));
      console.log(`\n${places.length} dashboards send ${file} at the same time`);
      const built = await Promise.all(places.map((place) => buildAs(place, work, receiver, port)));
      show(built);
      expect(most === places.length, 'both builds ran at the same time');
      expect(new Set(built.map(({ sha256 }) => sha256)).size === places.length, 'the programs differ');
      console.log(
        'Both were built at the same time, in separate directories, and each dashboard got its own program.',
      );
    } finally {
      await receiver.close();
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** What one dashboard does: pair, send its configuration, wait, download the result and run it. */
async function buildAs(place: string, work: string, receiver: Receiver, port: number): Promise<Built> {
  const home = join(work, place.replaceAll(' ', '-'));
  await mkdir(home);
  const words = `the kitchen ${place}`;
  await writeFile(
    join(home, file),
    `esphome:\n  name: kitchen\n  friendly_name: Kitchen ${place}\nhost:\nlogger:\n` +
      `interval:\n  - interval: 300ms\n    then:\n      - logger.log: "${words}"\n`,
  );
  const identity = await loadOffloaderIdentity(home);
  const offloader = createOffloader({ identity, connect: () => dial({ host, port }), label: place });
  const { pin } = receiver;
  receiver.pairing.open();
  await offloader.requestPairing({ pin });
  const request = receiver.pairing.requests().find(({ dashboardId }) => dashboardId === identity.dashboardId);
  await receiver.pairing.approve(identity.dashboardId, request?.pin ?? '');
  const session = await offloader.openSession({ pin });
  const { bytes: bundle } = await makeBundle({ configDir: home, file });
  const { status, errorMessage, jobId } = await session.build({ file, bundle });
  expect(status === 'completed', `the build ${place} completes: ${errorMessage}`);
  const artifacts = await session.downloadArtifacts(jobId);
  await session.close();

  const { firmwarePath, storage } = await unpackArtifacts(artifacts.bytes, join(home, 'firmware'));
  expect(storage.friendlyName === `Kitchen ${place}`, `the result ${place} is the kitchen ${place}`);
  const program = await readFile(firmwarePath);
  const others = places.filter((other) => other !== place);
  for (const other of others)
    expect(!program.includes(`the kitchen ${other}`), `it contains nothing of the kitchen ${other}`);
  const lines = await runFor(firmwarePath, listenMs);
  const configuration =
    receiver.jobs.list().find(({ peerJobId }) => peerJobId === jobId)?.configuration ?? '';
  return {
    place,
    directory: relative(receiver.paths.configDir, receiver.paths.resolveDataDir(configuration)),
    bytes: program.length,
    sha256: createHash('sha256').update(program).digest('hex'),
    says: lines.find((line) => line.includes(words)) ?? lines.at(-1) ?? '',
  };
}

function runningNow({ jobs }: Receiver): number {
  return jobs.list().filter(({ state }) => state === 'running').length;
}

function show(built: readonly Built[]): void {
  for (const { place, directory, bytes, sha256, says } of built) {
    console.log(`\n  the dashboard ${place}`);
    console.log(`    built in  ${directory}`);
    console.log(`    program   ${bytes} bytes, sha256 ${sha256.slice(0, 16)}…`);
    console.log(`    it says   ${says.replace(/^.*?(?=the kitchen)/, '')}`);
  }
  console.log('');
}

function expect(isSo: boolean, what: string): void {
  if (!isSo) throw new Error(`check failed: ${what}`);
}

const { values } = readArgs('Usage: main.ts [--once] [--esphome CMD]', {
  options: { once: { type: 'boolean', default: false }, esphome: { type: 'string' } },
});

try {
  await main(values.esphome);
} catch (error) {
  console.error(isReceiverError(error) ? error.message : error);
  process.exitCode = 1;
}
