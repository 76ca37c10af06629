/**
 * Trees, records and clocks that are made to lead a sweep astray. Each time: what lies beside the roots and behind the
 * links lives, the rest is swept all the same, the report names what was left and why, and nothing rejects.
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

/** What was left, by its name or its place, with the reason. */
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

/** Sweeps a day later, and looks at what must hold after every sweep. */
async function sweepNextDay(here: KeptPlace): Promise<SweepReport> {
  here.clock.advance(dayMs);
  const report = await here.retentionService.retention.sweep();
  for (const { why } of report.left) assert.ok(!why.includes('/'), `it names a place: ${why}`);
  await here.assertCanaries();
  return report;
}

test('A builds directory that is a link is its operator’s choice, and is swept', async (t) => {
  const here = await keptDevices(t);
  const { buildsDir } = here.layout;
  const elsewhere = join(here.base, 'volume');
  await rename(buildsDir, elsewhere);
  await symlink(elsewhere, buildsDir);
  const report = await sweepNextDay(here);
  assert.equal(report.removed.length, 4);
  assert.deepEqual(await readdir(elsewhere), ['.receiver']);
});

test('Links among peers, devices and files are not walked through, and those among the first two are named', async (t) => {
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

test('A device that has become a link to another peer’s goes itself, and the other’s does not', async (t) => {
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

test('A revoked peer’s directory that is a link costs nobody anything', async (t) => {
  const here = await keptDevices(t);
  await rename(peerDir(here, mine), join(here.base, 'moved'));
  await symlink(peerDir(here, other), peerDir(here, mine));
  await here.retentionService.owners.remove(mine);
  assert.deepEqual((await readdir(peerDir(here, other))).toSorted(), ['hall', 'kitchen']);
  await here.assertCanaries();
});

test('A revoked peer is gone with whatever it has left, and a job that cannot be forgotten does not keep the rest', async (t) => {
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

test('Names that are none of ours stay, and are named', async (t) => {
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

test('A file, a FIFO and a socket in the place of a peer or a device are named, and inside a device they go', async (t) => {
  const here = await keptDevices(t);
  const own = peerDir(here, mine);
  await writeFile(peerDir(here, 'file-for-a-peer'), 'file');
  await writeFile(join(own, 'file'), 'file');
  for (const place of [peerDir(here, 'fifo-for-a-peer'), join(own, 'fifo')]) execFileSync('mkfifo', [place]);
  // A path to a socket has to be short, so it is made beside and moved.
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
  const why = 'it is no directory';
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

test('A device whose place a file has taken is forgotten with the file, or left when it was never known', async (t) => {
  const here = await keptDevices(t);
  const subtree = here.layout.subtree(mineKitchen);
  await rm(subtree, { recursive: true });
  await writeFile(subtree, 'a file');
  const report = await sweepNextDay(here);
  assert.ok(removedIn(report).includes(`${mine}/kitchen`));
  assert.ok(!existsSync(subtree));
  assert.deepEqual(await readdir(here.layout.devicesDir), []);
});

test('A peer whose place a file has taken is forgotten, with its devices’ records', async (t) => {
  const here = await keptDevices(t);
  await rm(peerDir(here, mine), { recursive: true });
  await writeFile(peerDir(here, mine), 'a file');
  const report = await sweepNextDay(here);
  assert.deepEqual(removedIn(report), [`${other}/hall`, `${other}/kitchen`]);
  assert.deepEqual(leftIn(report), { [mine]: 'it is no directory' });
  assert.deepEqual(await readdir(here.layout.devicesDir), []);
});

test(
  'A peer whose directory cannot be looked into is left and named without a place; one device of another is swept',
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
  'What a build hides behind missing permissions counts, and goes',
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
  test(`A move that fails with ${code} leaves its device whole, and the others go`, async (t) => {
    const failing = new Set(['hall']);
    const here = await keptDevices(t, {
      async underLease(key, _reason, work) {
        let moves = 0;
        return work({
          publish: async (act) => {
            moves += 1;
            // At a reset in the middle, when some have been moved.
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
    const why = 'it could not be removed; the log says why';
    assert.deepEqual(leftIn(report), { [`${mine}/hall`]: why, [`${other}/hall`]: why });
    assert.deepEqual(await readdir(here.layout.subtree(theirHall)), before);

    isResetting = true;
    const { left } = await here.retentionService.retention.reset({ dashboardId: other });
    assert.deepEqual(
      left.map((each) => each.why),
      [why],
    );
    assert.deepEqual(await readdir(here.layout.trashDir), [], 'what was moved before the failure is gone');
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
  'A trash that is on another volume has everything stay, and names it',
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

test('Records that are damaged, forged or of another device make nothing older than it is', async (t) => {
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
    // A fresh receiver knows nothing but the record; the file of the one that is gone holds one of somebody else.
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

test('A record of a size beyond all sense has nobody’s builds go', async (t) => {
  const here = await keptDevices(t);
  await here.retentionService.close();
  const record = JSON.parse(await readFile(recordFile(here), 'utf8')) as object;
  const sizes = { config: 1e308, build: 1e308, other: 0 };
  await writeFile(recordFile(here), JSON.stringify({ ...record, sizes }));
  await here.restart();
  const report = await here.retentionService.retention.setLimits({ maxBuildBytes: 10_000_000 });
  assert.deepEqual(report.removed, []);
});

test('A tree deeper than a path may be long goes, and counts as far as it can be named', async (t) => {
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

test('After a clock that was a year ahead, what was used then is kept for a day and no longer', async (t) => {
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

test('What was measured while the clock was a year ahead is measured anew and counts', async (t) => {
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

test('A clock that is set back by a year has nothing go early, and nothing stay for that year', async (t) => {
  const here = await keptDevices(t);
  here.clock.jump(-yearMs);
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep()), []);
  here.clock.advance(dayMs - hourMs);
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep()), []);
  here.clock.advance(hourMs);
  assert.equal((await here.retentionService.retention.sweep()).removed.length, 4);
  await here.assertCanaries();
});

test('A clock that is set forward by a year has nothing go that was used within the day', async (t) => {
  const here = await keptDevices(t);
  here.clock.advance(hourMs);
  here.clock.jump(yearMs);
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep({ dryRun: true })), []);
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep()), []);
  // And it is on record.
  await here.retentionService.close();
  await here.restart();
  here.clock.advance(dayMs - 2 * hourMs);
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep()), []);
  here.clock.advance(hourMs);
  assert.equal((await here.retentionService.retention.sweep()).removed.length, 4);
});

test('A receiver that starts in 1970 takes nothing away, then or when it learns the time', async (t) => {
  const here = await keptDevices(t);
  const today = here.clock.wall();
  await here.retentionService.close();
  here.clock.jump(1_000 - today);
  await here.restart();
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep()), []);
  // Its records cannot be written, so what it has in mind is all that there is.
  const { devicesDir } = here.layout;
  await rename(devicesDir, `${devicesDir}.away`);
  here.jobs.end(here.jobs.begin(mineKitchen).id);
  // Behind the measurement, and so behind all writes.
  await here.retentionService.retention.setLimits({}).catch(() => {});
  await mkdir(devicesDir);
  here.clock.jump(today + hourMs - here.clock.wall());
  assert.deepEqual(removedIn(await here.retentionService.retention.sweep()), []);
  assert.equal((await sweepNextDay(here)).removed.length, 4);
});

test('A dry run on a full disk names what a wet one takes, and no more', async (t) => {
  let freeBytes = 1_000_000_000;
  const here = await keptDevices(t, { minFreeDiskBytes: 1_000_000, freeBytesOf: async () => freeBytes });
  here.clock.advance(dayMs - hourMs);
  for (const key of [theirKitchen, theirHall]) here.jobs.end(here.jobs.begin(key).id);
  await here.retentionService.retention.sweep();
  here.clock.advance(hourMs);
  // What goes for its age is enough.
  freeBytes = 999_000;
  const dry = await here.retentionService.retention.sweep({ dryRun: true });
  assert.deepEqual(removedIn(dry), [`${mine}/hall`, `${mine}/kitchen`]);
  assert.ok(existsSync(dirname(here.layout.subtree(mineKitchen))));
});
