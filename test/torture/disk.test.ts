/**
 * A whole receiver on a volume of 64 MB that is full, read-only, out of files, or in a process that is out of descriptors,
 * at each step of its work. Nothing acknowledged is lost, nothing trusted is undone, and everything works again without a
 * restart once the cause is gone. DISK_STEPS and DISK_FAULTS choose some of them.
 */
import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import {
  createOffloader,
  dial,
  isReceiverError,
  loadOffloaderIdentity,
  makeBundle,
  type BuildResult,
  type Bundle,
  type Offloader,
  type OffloaderIdentity,
  type OffloaderSession,
} from '../../src/koa/offloader.js';
import { startWorkers, type Worker } from '../locks/helpers.js';
import { fillFiles, fillVolume, remount, smallVolume } from '../support/small-volume.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import type { DiskAnswer, DiskQuestion } from './disk-worker.js';

const steps = ['upload', 'record', 'compile', 'pack', 'download', 'pairing', 'revocation', 'start'] as const;
type DiskStep = (typeof steps)[number];
const faults = ['full', 'read-only', 'no files', 'no descriptors'] as const;
type Fault = (typeof faults)[number];

const chosen = <T extends string>(all: readonly T[], variable: string): readonly T[] =>
  all.filter((each) => (process.env[variable] ?? each).split(',').includes(each));

/** How long a fault lasts: longer than a heartbeat, shorter than the time of a stale lock. */
const faultMs = 1_500;
const jobDeadlineMs = 60_000;

interface Disk {
  readonly volume: string;
  readonly home: string;
  readonly worker: Worker;
  port: number;
  pin: string;
  ask(question: DiskQuestion): Promise<DiskAnswer>;
  begin(fault: Fault): Promise<void>;
  end(fault: Fault): Promise<void>;
}

async function openDisk(t: TestContext): Promise<Disk | null> {
  const volume = await smallVolume(t, { megabytes: 64, files: 6_000 });
  if (volume === null) return null;
  const [worker] = await startWorkers(t, new URL('./disk-worker.ts', import.meta.url), 1);
  assert.ok(worker);
  const ask = (question: DiskQuestion): Promise<DiskAnswer> => worker.ask<DiskAnswer>(question);
  const disk: Disk = {
    ...{ volume, worker, ask, home: await tempDir(t), port: 0, pin: '' },
    async begin(fault) {
      if (fault === 'full') await fillVolume(volume);
      else if (fault === 'no files') await fillFiles(volume);
      else if (fault === 'no descriptors') await ask({ do: 'exhaust' });
      else {
        try {
          remount(volume, 'ro');
        } catch {
          t.diagnostic('not made read-only: a file is open for writing');
        }
      }
    },
    async end(fault) {
      if (fault === 'read-only') remount(volume, 'rw');
      await ask({ do: 'relieve' });
      await rm(join(volume, 'filler'), { recursive: true, force: true });
    },
  };
  await start(disk);
  return disk;
}

async function start(disk: Disk): Promise<void> {
  const { error, port, pin } = await disk.ask({ do: 'start', configDir: disk.volume });
  if (error !== undefined) throw new Error(error);
  if (disk.pin !== '') assert.equal(pin, disk.pin, 'the key is the same');
  Object.assign(disk, { port, pin });
}

interface Dashboard {
  readonly identity: OffloaderIdentity;
  readonly offloader: Offloader;
}

async function dashboard(disk: Disk, name: string): Promise<Dashboard> {
  const identity = await loadOffloaderIdentity(join(disk.home, `of ${name}`));
  const connect = async (): ReturnType<typeof dial> => dial({ host: '127.0.0.1', port: disk.port });
  return { identity, offloader: createOffloader({ identity, connect, label: name }) };
}

async function pair(disk: Disk, { offloader, identity }: Dashboard): Promise<void> {
  await disk.ask({ do: 'approve' });
  await offloader.requestPairing({ pin: disk.pin });
  const { error } = await disk.ask({ do: 'approve' });
  assert.equal(error, undefined);
  const { ids } = await disk.ask({ do: 'peers' });
  assert.ok(ids?.includes(identity.dashboardId));
}

/** A second one can be refused for a moment while the first is being closed. */
async function open(disk: Disk, { offloader }: Dashboard): Promise<OffloaderSession> {
  return waitFor(async () => offloader.openSession({ pin: disk.pin }), {
    ...{ what: 'a session', deadlineMs: 30_000 },
  });
}

let bundles = 0;

async function bundleOf(disk: Disk, knobs: string): Promise<{ file: string; bundle: Bundle }> {
  bundles += 1;
  const configDir = join(disk.home, `bundle ${bundles}`);
  await mkdir(configDir);
  const text = `# stand-in: ${knobs}\n# ${bundles}\nesphome:\n  name: kitchen\n  friendly_name: Kitchen\nhost:\n`;
  await writeFile(join(configDir, 'kitchen.yaml'), text);
  return { file: 'kitchen.yaml', bundle: (await makeBundle({ configDir, file: 'kitchen.yaml' })).bytes };
}

interface Attempted {
  readonly isAccepted: boolean;
  readonly result: BuildResult | Error;
}

/** A build that runs into the fault at `moment`; the fault is over when this resolves. */
async function buildInto(
  disk: Disk,
  session: OffloaderSession,
  fault: Fault,
  moment: 'before' | 'accepted' | 'sleeping' | 'packing',
): Promise<Attempted> {
  let [isAccepted, hasCome] = [false, moment === 'before'];
  let output = '';
  if (moment === 'before') await disk.begin(fault);
  const knobs = moment === 'packing' ? 'size=8000000' : 'sleep=2000 size=100000';
  const work = session
    .build({
      ...(await bundleOf(disk, knobs)),
      onAccepted() {
        isAccepted = true;
        if (moment === 'accepted') hasCome = true;
      },
      onOutput(line) {
        output += line;
        if (moment === 'sleeping' && output.includes('sleeping')) hasCome = true;
        if (moment === 'packing' && /success/i.test(output)) hasCome = true;
      },
    })
    .catch((error: unknown) => error as Error);
  await Promise.race([waitFor(() => hasCome, { deadlineMs: 20_000, what: `${moment}: ${output}` }), work]);
  if (moment !== 'before') await disk.begin(fault);
  await pause(faultMs);
  await disk.end(fault);
  const result = await Promise.race([
    work,
    pause(jobDeadlineMs, new Error(`no end in ${jobDeadlineMs} ms`), { ref: false }),
  ]);
  return { isAccepted, result };
}

async function assertWorks(disk: Disk, who: Dashboard, at: string): Promise<void> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const session = await open(disk, who);
    const result = await session
      .build(await bundleOf(disk, 'size=100000'))
      .catch((error: unknown) => error as Error);
    if ('status' in result && result.status === 'completed') {
      const { bytes } = await session.downloadArtifacts(result.jobId);
      assert.ok(bytes.length > 1_000, at);
      await session.close();
      return;
    }
    await session.close().catch(() => {});
    const why = 'status' in result ? `${result.failureReason} ${result.errorMessage}` : String(result);
    if (Date.now() > deadline) assert.fail(`${at}: ${why}\n${(await disk.ask({ do: 'log' })).text}`);
    await pause(500);
  }
}

/** An acknowledged job ends with a state and a reason, or the dashboard that lost its session finds it under its id. */
async function assertEnded(disk: Disk, { isAccepted, result }: Attempted, at: string): Promise<void> {
  if (!isAccepted) return;
  if ('status' in result) {
    if (result.status === 'failed') assert.notEqual(result.errorMessage, '', at);
    return;
  }
  assert.ok(isReceiverError(result), `${at}: ${String(result)}`);
  await waitFor(
    async () => {
      const { ids = [] } = await disk.ask({ do: 'jobs' });
      return ids.every((line) => /(completed|failed|cancelled)$/.test(line));
    },
    { deadlineMs: jobDeadlineMs, what: `${at}: the end of all jobs` },
  );
}

const moments = { upload: 'before', record: 'accepted', compile: 'sleeping', pack: 'packing' } as const;

async function round(disk: Disk, who: Dashboard, step: DiskStep, fault: Fault): Promise<void> {
  const at = `${fault} at ${step}`;
  if (step in moments) {
    const session = await open(disk, who);
    const attempted = await buildInto(disk, session, fault, moments[step as keyof typeof moments]);
    await session.close().catch(() => {});
    await assertEnded(disk, attempted, at);
  } else if (step === 'download') {
    const session = await open(disk, who);
    const { jobId } = await session.build(await bundleOf(disk, 'size=100000'));
    await disk.begin(fault);
    await session.downloadArtifacts(jobId).catch(() => {});
    await disk.end(fault);
    await session.close().catch(() => {});
    const again = await open(disk, who);
    const { bytes } = await again.downloadArtifacts(jobId);
    assert.ok(bytes.length > 1_000, at);
    await again.close();
  } else if (step === 'pairing') {
    const newcomer = await dashboard(disk, `newcomer of ${fault}`);
    await disk.ask({ do: 'approve' });
    await newcomer.offloader.requestPairing({ pin: disk.pin });
    await disk.begin(fault);
    const { error } = await disk.ask({ do: 'approve' });
    await disk.end(fault);
    if (error !== undefined) {
      assert.match(error, /^(STORAGE|PAIRING)/, at);
      assert.equal((await disk.ask({ do: 'approve' })).error, undefined, `${at}: the approval is repeated`);
    }
    await assertWorks(disk, newcomer, at);
    await disk.ask({ do: 'revoke', id: newcomer.identity.dashboardId });
  } else if (step === 'revocation') {
    const leaver = await dashboard(disk, `leaver of ${fault}`);
    await pair(disk, leaver);
    await disk.begin(fault);
    const { error } = await disk.ask({ do: 'revoke', id: leaver.identity.dashboardId });
    assert.ok(!(await disk.ask({ do: 'peers' })).ids?.includes(leaver.identity.dashboardId), at);
    await disk.end(fault);
    if (error !== undefined) {
      assert.match(error, /^STORAGE/, at);
      const again = await disk.ask({ do: 'revoke', id: leaver.identity.dashboardId });
      assert.equal(again.error, undefined, `${at}: the revocation is repeated`);
    }
    await disk.ask({ do: 'stop' });
    await start(disk);
    await assert.rejects(leaver.offloader.openSession({ pin: disk.pin }), { code: 'REJECTED' }, at);
  } else {
    await disk.ask({ do: 'stop' });
    await disk.begin(fault);
    const { error, port } = await disk.ask({ do: 'start', configDir: disk.volume });
    if (port !== undefined) disk.port = port;
    else if (fault === 'full' || fault === 'no files') assert.fail(`${at}: ${error}`);
    await pause(faultMs);
    await disk.end(fault);
    if (port === undefined) await start(disk);
  }
  await assertWorks(disk, who, at);
  const { ids } = await disk.ask({ do: 'peers' });
  assert.deepEqual(ids, [who.identity.dashboardId], `${at}: who is trusted`);
}

for (const fault of chosen(faults, 'DISK_FAULTS')) {
  test(`With ${fault === 'full' ? 'a full volume' : fault === 'read-only' ? 'a read-only volume' : fault} at each step, nothing is lost and everything works afterwards`, async (t) => {
    const disk = await openDisk(t);
    if (disk === null) return;
    const who = await dashboard(disk, 'dashboard');
    await pair(disk, who);
    await assertWorks(disk, who, 'before all');
    for (const step of chosen(steps, 'DISK_STEPS')) {
      const begun = Date.now();
      await round(disk, who, step, fault);
      t.diagnostic(`${step}: ${Date.now() - begun} ms`);
    }
    assert.equal((await disk.ask({ do: 'stop' })).error, undefined);
  });
}
