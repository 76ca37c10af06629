/**
 * Trees, records and clocks crafted to mislead a sweep. In every case, files beside the roots and behind links survive,
 * everything else is still swept, the report names what was left and why, and nothing rejects.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

import { hashName } from '../../src/paths/segments.js';
import type { SweepReport } from '../../src/retention/sweep.js';
import { keptDevices, keptPlace, type KeptPlace } from './kept-place.js';
import { keyOf, mine, other, plant } from './place.js';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const yearMs = 365 * dayMs;
const isRoot = process.getuid?.() === 0;
const mineKitchen = keyOf(mine, 'kitchen');
const [theirKitchen, theirHall] = [keyOf(other, 'kitchen'), keyOf(other, 'hall')];

const peerDir = (here: KeptPlace, peer: string): string => join(here.layout.buildsDir, peer);
const recordFile = (here: KeptPlace, device = mineKitchen): string =>
  join(here.layout.devicesDir, `${hashName('device', device.dashboardId, device.device)}.json`);

function removedIn({ removed }: SweepReport): string[] {
  return removed
    .map(({ item }) => (item.kind === 'device' ? `${item.dashboardId}/${item.device}` : item.kind))
    .toSorted();
}

/** The reasons in `left` by device or path. */
function leftIn({ left }: SweepReport): Record<string, string> {
  return Object.fromEntries(
    left.map(({ what, why }) => [
      what.kind === 'device'
        ? `${what.dashboardId}/${what.device}`
        : 'place' in what
          ? what.place
          : what.kind,
      why,
    ]),
  );
}

/** Sweeps a day later, and checks what must hold after every sweep. */
async function sweepNextDay(here: KeptPlace): Promise<SweepReport> {
  here.clock.advance(dayMs);
  const report = await here.retentionService.retention.sweep();
  for (const { why } of report.left) assert.ok(!why.includes('/'), `it names a path: ${why}`);
  await here.assertCanaries();
  return report;
}

test('A builds directory that is a link is the operator’s choice and is swept', async (t) => {
  const here = await keptDevices(t);
  const { buildsDir } = here.layout;
  const elsewhere = join(here.base, 'volume');
  await rename(buildsDir, elsewhere);
  await symlink(elsewhere, buildsDir);
  const report = await sweepNextDay(here);
  assert.equal(report.removed.length, 4);
  assert.deepEqual(await readdir(elsewhere), ['.receiver']);
});

test('Links in place of peers, devices and files are not followed, and the first two kinds are reported', async (t) => {
  const here = await keptDevices(t);
  const canary = await here.canary('behind');
  await symlink(canary, peerDir(here, 'linked-peer'));
  await symlink(canary, join(peerDir(here, mine), 'linked'));
  await symlink(join(here.base, 'nowhere'), join(peerDir(here, mine), 'dangling'));
  for (const name of ['link', 'build/k/link']) {
    await symlink(canary, join(here.layout.subtree(mineKitchen), name));
    await symlink(join(canary, 'alive'), join(here.layout.subtree(mineKitchen), `${name}-to-a-file`));
  }
  const report = await sweepNextDay(here);
  assert.equal(report.removed.length, 4);
  const why = 'it is a link';
  assert.deepEqual(leftIn(report), {
    [`${mine}/dangling`]: why,
    [`${mine}/linked`]: why,
    'linked-peer': why,
  });
  await here.retentionService.retention.reset('all');
  await here.retentionService.retention.reset({ dashboardId: 'linked-peer' });
  await here.assertCanaries();
  assert.ok(existsSync(peerDir(here, 'linked-peer')));
});

test('A device replaced by a link to another peer’s device is removed, and the other device stays', async (t) => {
  const here = await keptDevices(t);
  here.clock.advance(dayMs);
  for (const key of [theirKitchen, theirHall]) here.jobs.begin(key);
  const subtree = here.layout.subtree(mineKitchen);
  await rename(subtree, join(here.base, 'stolen'));
  await symlink(here.layout.subtree(theirKitchen), subtree);
  const report = await here.retentionService.retention.sweep();
  assert.deepEqual(removedIn(report), [`${mine}/hall`, `${mine}/kitchen`]);
  assert.ok(existsSync(join(here.layout.subtree(theirKitchen), 'build')));
  await here.assertCanaries();
});

test('Removing a revoked peer whose directory is a link does not touch another peer', async (t) => {
  const here = await keptDevices(t);
  await rename(peerDir(here, mine), join(here.base, 'moved'));
  await symlink(peerDir(here, other), peerDir(here, mine));
  await here.retentionService.owners.remove(mine);
  assert.deepEqual((await readdir(peerDir(here, other))).toSorted(), ['hall', 'kitchen']);
  await here.assertCanaries();
});

test('All files of a revoked peer are removed, even if a job cannot be forgotten', async (t) => {
  const here = await keptDevices(t);
  const canary = await here.canary('behind');
  const peer = peerDir(here, mine);
  await writeFile(join(peer, 'a file'), '');
  await mkdir(join(peer, 'Not A Device!'));
  await symlink(canary, join(peer, 'link'));
  execFileSync('mkfifo', [join(peer, 'fifo')]);
  const { id } = here.jobs.begin(mineKitchen);
  here.jobs.remove = async () => Promise.reject(Object.assign(new Error('EIO: no'), { code: 'EIO' }));
  await here.retentionService.owners.remove(mine);
  assert.equal(here.jobs.get(id)?.state, 'cancelled');
  assert.deepEqual((await readdir(here.layout.buildsDir)).toSorted(), ['.receiver', other]);
  await here.assertCanaries();
});

test('Entries with foreign names stay and are reported', async (t) => {
  const here = await keptDevices(t);
  const names = ['short', 'Ünï çode', '..hidden', 'with.dot.in.it', 'con', '-rf', 'a\nnew line'];
  for (const name of names) await mkdir(join(peerDir(here, mine), name));
  for (const name of ['short', '..hidden-peer', 'with space in it', 'ünïcode-peer'])
    await mkdir(join(here.layout.buildsDir, name));
  const report = await sweepNextDay(here);
  assert.equal(report.removed.length, 4);
  const refused = names.filter((name) => `${mine}/${name}` in leftIn(report));
  assert.ok(refused.length >= 5, refused.join());
  for (const name of names) assert.ok(existsSync(join(peerDir(here, mine), name)), name);
  for (const name of ['short', '..hidden-peer', 'with space in it', 'ünïcode-peer'])
    assert.ok(name in leftIn(report), name);
});

test('Special files are reported in place of a peer or device, and removed inside a device', async (t) => {
  const here = await keptDevices(t);
  const own = peerDir(here, mine);
  await writeFile(peerDir(here, 'file-for-a-peer'), 'file');
  await writeFile(join(own, 'file'), 'file');
  for (const place of [peerDir(here, 'fifo-for-a-peer'), join(own, 'fifo')]) execFileSync('mkfifo', [place]);
  // Socket paths must be short, so the socket is created elsewhere and moved.
  const sockets = await mkdtemp('/tmp/s-');
  t.after(() => rm(sockets, { recursive: true, force: true }));
  const server = createServer().listen(join(sockets, 's'));
  t.after(() => void server.close());
  await new Promise((resolve) => server.once('listening', resolve));
  const subtree = here.layout.subtree(mineKitchen);
  const isMoved = await rename(join(sockets, 's'), join(subtree, 'build', 'socket')).then(
    () => true,
    () => false,
  );
  if (!isMoved) t.diagnostic('the sockets are on another file system');
  execFileSync('mkfifo', [join(subtree, 'build', 'fifo')]);
  const report = await sweepNextDay(here);
  assert.equal(report.removed.length, 4);
  const why = 'it is not a directory';
  assert.deepEqual(leftIn(report), {
    [`${mine}/fifo`]: why,
    [`${mine}/file`]: why,
    'fifo-for-a-peer': why,
    'file-for-a-peer': why,
  });
  assert.ok(!existsSync(subtree));
  await here.retentionService.retention.reset({ dashboardId: mine });
  assert.equal(await readFile(join(own, 'file'), 'utf8'), 'file');
});

test('A known device replaced by a file is removed together with its record', async (t) => {
  const here = await keptDevices(t);
  const subtree = here.layout.subtree(mineKitchen);
  await rm(subtree, { recursive: true });
  await writeFile(subtree, 'a file');
  const report = await sweepNextDay(here);
  assert.ok(removedIn(report).includes(`${mine}/kitchen`));
  assert.ok(!existsSync(subtree));
  assert.deepEqual(await readdir(here.layout.devicesDir), []);
});

test('The device records of a peer replaced by a file are removed', async (t) => {
  const here = await keptDevices(t);
  await rm(peerDir(here, mine), { recursive: true });
  await writeFile(peerDir(here, mine), 'a file');
  const report = await sweepNextDay(here);
  assert.deepEqual(removedIn(report), [`${other}/hall`, `${other}/kitchen`]);
  assert.deepEqual(leftIn(report), { [mine]: 'it is not a directory' });
  assert.deepEqual(await readdir(here.layout.devicesDir), []);
});

test(
  'An unreadable peer directory stays and is reported without its path, and other peers are swept',
  { skip: isRoot && 'permissions do not hold for root' },
  async (t) => {
    const here = await keptDevices(t);
    await chmod(peerDir(here, mine), 0);
    t.after(() => chmod(peerDir(here, mine), 0o700).catch(() => {}));
    const report = await sweepNextDay(here);
    assert.deepEqual(removedIn(report), [`${other}/hall`, `${other}/kitchen`]);
    assert.equal(leftIn(report)[mine], 'it cannot be looked into (EACCES)');
    await here.retentionService.owners.remove(mine);
    await chmod(peerDir(here, mine), 0o700);
    assert.deepEqual((await readdir(peerDir(here, mine))).toSorted(), ['hall', 'kitchen']);
  },
);

test(
  'Files that a build hides behind missing permissions are counted and removed',
  { skip: isRoot && 'permissions do not hold for root' },
  async (t) => {
    const here = await keptPlace(t);
    await plant(here.layout, mineKitchen, 1_000_000);
    const subtree = here.layout.subtree(mineKitchen);
    await chmod(join(subtree, 'build'), 0);
    await chmod(subtree, 0);
    await here.retentionService.retention.sweep();
    assert.ok((await here.retentionService.retention.usage()).builds >= 1_000_000);
    await chmod(subtree, 0);
    assert.deepEqual(removedIn(await sweepNextDay(here)), [`${mine}/kitchen`]);
  },
);

for (const code of ['ENOSPC', 'EXDEV', 'EIO']) {
  test(`A move that fails with ${code} leaves its device intact, and the others are removed`, async (t) => {
    const failing = new Set(['hall']);
    const here = await keptDevices(t, {
      async underLease(key, _reason, work) {
        let moves = 0;
        return work({
          publish: async (act) => {
            moves += 1;
            // In a reset, fails midway, after the first move.
            if (failing.has(key.device) && moves !== 1) throw failed(code, here);
            if (failing.has(key.device) && !isResetting) throw failed(code, here);
            return act();
          },
        });
      },
    });
    let isResetting = false;
    const before = await readdir(here.layout.subtree(theirHall));
    const report = await sweepNextDay(here);
    assert.deepEqual(removedIn(report), [`${mine}/kitchen`, `${other}/kitchen`]);
    const why = `files of a device cannot be removed (${code})`;
    assert.deepEqual(leftIn(report), { [`${mine}/hall`]: why, [`${other}/hall`]: why });
    assert.deepEqual(await readdir(here.layout.subtree(theirHall)), before);

    isResetting = true;
    const { left } = await here.retentionService.retention.reset({ dashboardId: other });
    assert.deepEqual(
      left.map((each) => each.why),
      [why],
    );
    assert.deepEqual(await readdir(here.layout.trashDir), [], 'files moved before the failure are deleted');
    assert.equal((await here.retentionService.retention.usage()).peers.length, 2);

    failing.clear();
    assert.deepEqual(removedIn(await sweepNextDay(here)), [`${mine}/hall`, `${other}/hall`]);
  });
}

function failed(code: string, here: KeptPlace): Error {
  return Object.assign(new Error(`${code}: no, rename '${here.base}/x'`), { code });
}

const sharedMemory = '/dev/shm';
const hasOtherVolume =
  existsSync(sharedMemory) && statSync(sharedMemory).dev !== statSync(process.env['TMPDIR'] ?? '/tmp').dev;

test(
  'If the trash is on another volume, all devices stay and are reported',
  { skip: !hasOtherVolume && 'there is no other volume' },
  async (t) => {
    const here = await keptDevices(t);
    const away = await mkdtemp(join(sharedMemory, 'receiver-'));
    t.after(() => rm(away, { recursive: true, force: true }));
    await rm(here.layout.trashDir, { recursive: true });
    await symlink(away, here.layout.trashDir);
    const report = await sweepNextDay(here);
    assert.deepEqual([report.removed.length, report.left.length], [0, 4]);
    assert.ok(existsSync(join(here.layout.subtree(theirHall), 'build/k/program')));
    assert.deepEqual(await readdir(away), []);
  },
);

test('A damaged, forged or foreign record does not make a device older', async (t) => {
  const here = await keptDevices(t);
  const old = { usedAt: here.clock.wall() - 2 * dayMs, sizes: null, measuredAt: 0 };
  const oldOf = (key: object): string => JSON.stringify({ ...key, ...old });
  const forgeries: ((file: string) => unknown)[] = [
    (file) => writeFileSync(file, ''),
    (file) => writeFileSync(file, 'null'),
    (file) => writeFileSync(file, '{"dashboardId":'),
    (file) => writeFileSync(file, Buffer.from([0xff, 0xfe, 0])),
    (file) => writeFileSync(file, oldOf(theirKitchen)),
    (file) => writeFileSync(file, oldOf({ dashboardId: '../../../..', device: 'kitchen' })),
    (file) => writeFileSync(file, oldOf({ dashboardId: mine, device: '..' })),
    (file) =>
      writeFileSync(file, JSON.stringify({ ...mineKitchen, usedAt: '0', sizes: null, measuredAt: 0 })),
    (file) => writeFileSync(file, '{"usedAt":1e999}'),
    (file) => writeFileSync(file, `${' '.repeat(20_000)}${oldOf(mineKitchen)}`),
    (file) => mkdirSync(file),
    (file) => execFileSync('mkfifo', [file]),
  ];
  for (const [n, forge] of forgeries.entries()) {
    // A new receiver knows only the records. The hall's own is gone, and a copy lies under a wrong name.
    const file = recordFile(here);
    await rm(file, { recursive: true, force: true });
    forge(file);
    await writeFile(join(here.layout.devicesDir, `${'0'.repeat(40)}.json`), oldOf(theirHall));
    await rm(recordFile(here, theirHall), { force: true });
    await here.restart();
    const report = await here.retentionService.retention.sweep();
    assert.deepEqual([removedIn(report), report.left], [[], []], `forgery ${n}`);
    await here.retentionService.close();
  }
  await here.restart();
  here.retentionService.retention.touch(`.esphome/.remote_builds/${other}/hall/config/hall.yaml`);
  await here.assertCanaries();
  assert.equal((await sweepNextDay(here)).removed.length, 4);
});

test('A record with an absurd size does not cause any removal', async (t) => {
  const here = await keptDevices(t);
  await here.retentionService.close();
  const record = JSON.parse(await readFile(recordFile(here), 'utf8')) as object;
  const sizes = { config: 1e308, build: 1e308, other: 0 };
  await writeFile(recordFile(here), JSON.stringify({ ...record, sizes }));
  await here.restart();
  const report = await here.retentionService.retention.setLimits({ maxBuildBytes: 10_000_000 });
  assert.deepEqual(report.removed, []);
});

test('A tree deeper than the longest path is removed', async (t) => {
  const here = await keptDevices(t);
  const name = 'd'.repeat(200);
  const home = process.cwd();
  process.chdir(join(here.layout.subtree(mineKitchen), 'build'));
  try {
    for (let level = 0; level < 60; level += 1) {
      mkdirSync(name);
      process.chdir(name);
    }
    writeFileSync('bottom', 'deep');
  } finally {
    process.chdir(home);
  }
  const job = here.jobs.begin(mineKitchen);
  here.jobs.end(job.id);
  const report = await sweepNextDay(here);
  assert.equal(report.removed.length, 4);
  assert.deepEqual(await readdir(here.layout.trashDir), []);
});

test('A device used while the clock was a year ahead is kept for a day and no longer', async (t) => {
  const here = await keptDevices(t);
  here.clock.jump(yearMs);
  const job = here.jobs.begin(mineKitchen);
  here.jobs.end(job.id);
  await here.retentionService.close();
  here.clock.jump(-yearMs);
  for (let restart = 0; restart < 2; restart += 1) {
    await here.restart();
    assert.deepEqual(removedIn(await here.retentionService.retention.sweep()), []);
    await here.retentionService.close();
  }
  await here.restart();
  assert.equal((await sweepNextDay(here)).removed.length, 4);
});

test('A device measured while the clock was a year ahead is measured again', async (t) => {
  const here = await keptDevices(t);
  here.clock.jump(yearMs);
  here.jobs.end(here.jobs.begin(mineKitchen).id);
  await here.retentionService.retention.sweep();
  await here.retentionService.close();
  here.clock.jump(-yearMs);
  await here.restart();
  await writeFile(join(here.layout.subtree(mineKitchen), 'build', 'more'), Buffer.alloc(5_000_000, 1));
  await here.retentionService.retention.sweep();
  assert.ok((await here.retentionService.retention.usage()).builds > 5_000_000);
  await here.retentionService.close();
  await here.restart();
  await here.retentionService.retention.sweep();
  assert.ok((await here.retentionService.retention.usage()).builds > 5_000_000);
});

test('Setting the clock back a year makes no device go early or stay for that year', async (t) => {
  const here = await keptDevices(t);
  here.clock.jump(-yearMs);
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep()), []);
  here.clock.advance(dayMs - hourMs);
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep()), []);
  here.clock.advance(hourMs);
  assert.equal((await here.retentionService.retention.sweep()).removed.length, 4);
  await here.assertCanaries();
});

test('Setting the clock forward a year removes no device used within the day', async (t) => {
  const here = await keptDevices(t);
  here.clock.advance(hourMs);
  here.clock.jump(yearMs);
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep({ dryRun: true })), []);
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep()), []);
  // The shifted times are recorded on disk.
  await here.retentionService.close();
  await here.restart();
  here.clock.advance(dayMs - 2 * hourMs);
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep()), []);
  here.clock.advance(hourMs);
  assert.equal((await here.retentionService.retention.sweep()).removed.length, 4);
});

test('A receiver that starts in 1970 removes nothing, then or when it learns the time', async (t) => {
  const here = await keptDevices(t);
  const today = here.clock.wall();
  await here.retentionService.close();
  here.clock.jump(1_000 - today);
  await here.restart();
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep()), []);
  // Records cannot be written, so only those in memory remain.
  const { devicesDir } = here.layout;
  await rename(devicesDir, `${devicesDir}.away`);
  await writeFile(devicesDir, 'in the way');
  here.jobs.end(here.jobs.begin(mineKitchen).id);
  // Waits for the measurement, and so for all writes.
  await here.retentionService.retention.setLimits({}).catch(() => {});
  await rm(devicesDir);
  await mkdir(devicesDir);
  here.clock.jump(today + hourMs - here.clock.wall());
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep()), []);
  assert.equal((await sweepNextDay(here)).removed.length, 4);
});

test('A dry run on a full disk reports exactly what a sweep would remove', async (t) => {
  let freeBytes = 1_000_000_000;
  const here = await keptDevices(t, { minFreeDiskBytes: 1_000_000, freeBytesOf: async () => freeBytes });
  here.clock.advance(dayMs - hourMs);
  for (const key of [theirKitchen, theirHall]) here.jobs.end(here.jobs.begin(key).id);
  await here.retentionService.retention.sweep();
  here.clock.advance(hourMs);
  // Removing the expired devices frees enough.
  freeBytes = 999_000;
  const dry = await here.retentionService.retention.sweep({ dryRun: true });
  assert.deepEqual(removedIn(dry), [`${mine}/hall`, `${mine}/kitchen`]);
  assert.ok(existsSync(dirname(here.layout.subtree(mineKitchen))));
});
