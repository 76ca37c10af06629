/** The table of approved peers and its file. Covers src/peers/peer-row.ts. */
import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { systemClock as clock } from '../../src/async/clock.js';
import { silentLog } from '../../src/log.js';
import { dashboardId } from '../../src/paths/index.js';
import type { NewPeer } from '../../src/peers/peer-row.js';
import { hasPeers, openPeerTable, type PeerTable } from '../../src/peers/peers.js';
import { pinOf } from '../../src/protocol/fingerprint.js';
import { manualClock } from '../async/manual-clock.js';
import { everyFailure, failingDisk } from '../support/failing-disk.js';
import { tempDir } from '../support/temp-dir.js';
import { recordingLog } from '../support/recording-log.js';

const quiet = { clock, log: silentLog };
const publicKey = Buffer.from(Array.from({ length: 32 }, (_, n) => n));
const id = dashboardId('k3Jx0Qm7vXb2Zr8TtLw5Yc1NsEaUdPfG');
const home: NewPeer = {
  dashboardId: id,
  publicKey,
  label: 'Home',
  labelAuto: false,
  pairedAt: 1_788_000_000.5,
  address: '192.0.2.10',
  connectBackPort: 6055,
  friendlyName: 'hass',
  haAddon: true,
};
const row = {
  dashboard_id: id,
  pin_sha256: pinOf(publicKey),
  static_x25519_pub: 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n',
  label: 'Home',
  paired_at: 1_788_000_000.5,
  peer_ip: '192.0.2.10',
  connect_back_port: 6055,
  friendly_name: 'hass',
  ha_addon: true,
  label_auto: false,
};

const read = async (directory: string): Promise<unknown> =>
  JSON.parse(await readFile(join(directory, 'peers.json'), 'utf8'));
const write = (directory: string, content: unknown): Promise<void> =>
  writeFile(join(directory, 'peers.json'), JSON.stringify(content));

test("An approved peer is on disk in Device Builder's form, private to its owner, when add resolves", async (t) => {
  const directory = await tempDir(t);
  const peers = await openPeerTable(directory, quiet);
  const adding = peers.add(home);
  assert.equal(peers.get(id), undefined, 'nobody may meet the peer before it is on disk');
  await adding;
  const text = await readFile(join(directory, 'peers.json'), 'utf8');
  assert.equal(text, JSON.stringify({ version: 1, peers: [row] }));
  assert.equal((await stat(join(directory, 'peers.json'))).mode & 0o777, 0o600);
  const again = await openPeerTable(directory, quiet);
  const { publicKey: _, ...rest } = home;
  assert.deepEqual(again.list(), [{ ...rest, pin: pinOf(publicKey) }]);
});

test("Device Builder's file is read, and fields of another release survive a change", async (t) => {
  const directory = await tempDir(t);
  await write(directory, { peers: [{ ...row, groups: ['lab'] }] });
  const peers = await openPeerTable(directory, quiet);
  peers.refresh(id, { friendlyName: 'attic', connectBackPort: 6056 });
  await peers.close();
  assert.deepEqual(await read(directory), {
    version: 1,
    peers: [{ ...row, groups: ['lab'], friendly_name: 'attic', connect_back_port: 6056 }],
  });
});

test('A row with only the required fields gets the defaults, and an invalid port becomes 0', async (t) => {
  const directory = await tempDir(t);
  const { dashboard_id, pin_sha256, static_x25519_pub, label, paired_at } = row;
  const bare = { dashboard_id, pin_sha256, static_x25519_pub, label, paired_at, connect_back_port: 70_000 };
  await write(directory, { peers: [bare] });
  const peer = (await openPeerTable(directory, quiet)).get(id);
  assert.deepEqual(
    [peer?.address, peer?.connectBackPort, peer?.friendlyName, peer?.haAddon, peer?.labelAuto],
    ['', 0, '', false, false],
  );
});

test('An invalid row is dropped alone: the others stay, and a copy of the whole file is kept', async (t) => {
  const directory = await tempDir(t);
  const other = { ...row, dashboard_id: 'another-dashboard' };
  const bad = [
    { ...row, dashboard_id: 'missing-the-pin-here', pin_sha256: undefined },
    { ...row, dashboard_id: '../../escape' },
    { ...row, dashboard_id: id.toLowerCase(), label: 'differs from the first in case only' },
    null,
    'text',
  ];
  await write(directory, { peers: [row, ...bad, other] });
  const before = await readFile(join(directory, 'peers.json'), 'utf8');
  const log = recordingLog();
  const peers = await openPeerTable(directory, { clock, log });
  assert.deepEqual(
    peers.list().map((peer) => peer.dashboardId),
    [id, 'another-dashboard'],
  );
  assert.equal(log.entries.length, 1);
  const aside = (await readdir(directory)).find((name) => name.includes('unusable')) ?? '';
  assert.equal(await readFile(join(directory, aside), 'utf8'), before);
  await openPeerTable(directory, { clock, log });
  assert.equal(log.entries.length, 1, 'the cleaned file causes no second warning');
});

for (const [what, content] of [
  ['half a file', '{"peers":[{"dashboard_id"'],
  ['a list', '[]'],
  ['an empty file', ''],
] as const) {
  test(`A peers file that is ${what} is refused, and set aside only with newIdentity`, async (t) => {
    const directory = await tempDir(t);
    await writeFile(join(directory, 'peers.json'), content);
    const message = /peers\.json.*the file is damaged; restore peers\.json.*--new-identity/;
    await assert.rejects(openPeerTable(directory, quiet), { code: 'STATE', message });
    assert.deepEqual(await readdir(directory), ['peers.json']);
    const log = recordingLog();
    const peers = await openPeerTable(directory, { clock, log, newIdentity: true });
    await peers.add(home);
    assert.deepEqual(log.entries, ['warn: unusable state file set aside']);
    const aside = (await readdir(directory)).find((name) => name.includes('unusable')) ?? '';
    assert.equal(await readFile(join(directory, aside), 'utf8'), content);
  });
}

test('A missing peers file is refused if builds exist, and so is a link to a missing file', async (t) => {
  const directory = await tempDir(t);
  const isReliedOn = async (): Promise<boolean> => true;
  const message = /is missing, although builds exist; restore peers\.json/;
  await assert.rejects(openPeerTable(directory, { ...quiet, isReliedOn }), { code: 'STATE', message });
  await symlink('/nonexistent/peers', join(directory, 'peers.json'));
  assert.equal(await hasPeers(directory), true);
  await assert.rejects(openPeerTable(directory, quiet), { code: 'STATE' });
  const peers = await openPeerTable(directory, { ...quiet, isReliedOn, newIdentity: true });
  await peers.add(home);
  await peers.remove(id);
  assert.equal(await hasPeers(directory), false);
  assert.deepEqual((await openPeerTable(directory, { ...quiet, isReliedOn })).list(), []);
});

test('A peers file that is removed or damaged while it is in use is written again from memory', async (t) => {
  const directory = join(await tempDir(t), 'receiver');
  const log = recordingLog();
  const peers = await openPeerTable(directory, { clock, log });
  await peers.add(home);
  await rm(directory, { recursive: true });
  await peers.reread();
  assert.deepEqual(await read(directory), { version: 1, peers: [row] });
  await writeFile(join(directory, 'peers.json'), 'half');
  await peers.reread();
  assert.deepEqual(await read(directory), { version: 1, peers: [row] });
  assert.deepEqual(log.entries, [
    'warn: missing state file written again',
    'warn: unusable state file set aside',
    'warn: missing state file written again',
  ]);
  assert.deepEqual(peers.list().length, 1);
});

test('A revocation that cannot be saved is in force, can be repeated, and is saved once the disk works again', async (t) => {
  const directory = await tempDir(t);
  const log = recordingLog();
  const time = manualClock();
  const peers = await openPeerTable(directory, { clock: time, log });
  await peers.add(home);
  const disk = failingDisk(directory);
  t.after(() => disk[Symbol.dispose]());
  disk.failAt(1, 'ENOSPC', true);
  for (const attempt of ['the call', 'its repetition']) {
    await assert.rejects(peers.remove(id), { code: 'STORAGE', message: /cannot be saved \(ENOSPC\)$/ });
    assert.equal(peers.get(id), undefined, attempt);
    await peers.reread();
    assert.equal(peers.get(id), undefined, 'the file does not bring it back');
  }
  disk.heal();
  time.advance(60_000);
  await peers.close();
  assert.deepEqual(await read(directory), { version: 1, peers: [] });
  assert.equal(await peers.remove(id), false, 'nothing is left to do');
  assert.deepEqual(log.entries, [
    'error: peers file not saved, trying again',
    'info: peers file saved after a failure',
  ]);
});

test('A revocation that could not be saved is saved by an orderly stop', async (t) => {
  const directory = await tempDir(t);
  const peers = await openPeerTable(directory, quiet);
  await peers.add(home);
  const disk = failingDisk(directory);
  t.after(() => disk[Symbol.dispose]());
  disk.failAt(1, 'EROFS', true);
  await assert.rejects(peers.remove(id), { code: 'STORAGE' });
  disk.heal();
  await peers.close();
  assert.deepEqual((await openPeerTable(directory, quiet)).list(), []);
});

test('Whichever file system call fails, an approval is made or not, and can be repeated', async (t) => {
  const tried = await everyFailure(async () => {
    const directory = await tempDir(t);
    const peers = await openPeerTable(directory, quiet);
    await peers.add({ ...home, dashboardId: dashboardId('another-dashboard') });
    return {
      directory,
      act: () => peers.add(home),
      async check(outcome, at) {
        assert.equal(peers.get(id) !== undefined, 'result' in outcome, at);
        if ('error' in outcome) {
          assert.equal((outcome.error as { code?: unknown }).code, 'STORAGE', at);
          await peers.reread();
          assert.equal(peers.get(id), undefined, `${at}: what is left in the file does not count`);
          await peers.add(home);
        }
        await peers.close();
        assert.deepEqual(
          await read(directory),
          { version: 1, peers: [{ ...row, dashboard_id: 'another-dashboard' }, row] },
          at,
        );
        assert.equal((await openPeerTable(directory, quiet)).list().length, 2, at);
      },
    };
  });
  assert.ok(tried > 50, `${tried} failures`);
});

test('Whichever file system call fails, a revocation is in force and reaches the disk', async (t) => {
  const tried = await everyFailure(async () => {
    const directory = await tempDir(t);
    const peers = await openPeerTable(directory, quiet);
    await peers.add({ ...home, dashboardId: dashboardId('another-dashboard') });
    await peers.add(home);
    return {
      directory,
      act: () => peers.remove(id),
      async check(outcome, at) {
        assert.equal(peers.get(id), undefined, at);
        if ('error' in outcome) {
          assert.equal((outcome.error as { code?: unknown }).code, 'STORAGE', at);
          assert.equal(await peers.remove(id), true, `${at}: the call can be repeated`);
        }
        await peers.close();
        const [kept, ...more] = (await openPeerTable(directory, quiet)).list();
        assert.deepEqual([kept?.dashboardId, more], ['another-dashboard', []], at);
      },
    };
  });
  assert.ok(tried > 50, `${tried} failures`);
});

test('A file of a newer release is refused and left unchanged', async (t) => {
  const directory = await tempDir(t);
  await write(directory, { version: 2, peers: [row] });
  await assert.rejects(openPeerTable(directory, quiet), { code: 'STATE' });
  assert.deepEqual(await read(directory), { version: 2, peers: [row] });
});

test('A second peer whose id differs only in case is refused', async (t) => {
  const peers = await openPeerTable(await tempDir(t), quiet);
  await peers.add(home);
  const twin = dashboardId(id.toUpperCase());
  assert.equal(peers.hasTwin(twin), true);
  assert.equal(peers.hasTwin(id), false);
  assert.equal(peers.get(twin), undefined);
  await assert.rejects(peers.add({ ...home, dashboardId: twin }), { code: 'PAIRING' });
});

test('A revocation takes effect before it is on disk, and a refresh without changes writes nothing', async (t) => {
  const directory = await tempDir(t);
  const peers = await openPeerTable(directory, quiet);
  await peers.add(home);
  const { mtimeMs } = await stat(join(directory, 'peers.json'));
  peers.refresh(id, { label: 'Home', haAddon: true });
  await peers.close();
  assert.equal((await stat(join(directory, 'peers.json'))).mtimeMs, mtimeMs);
  const removing = peers.remove(id);
  assert.equal(peers.get(id), undefined);
  assert.equal(await removing, true);
  assert.deepEqual(await read(directory), { version: 1, peers: [] });
  assert.equal(await peers.remove(id), false);
});

test('Concurrent changes all reach the disk, and two approvals of one id give one peer', async (t) => {
  const directory = await tempDir(t);
  const peers = await openPeerTable(directory, quiet);
  const ids = Array.from({ length: 10 }, (_, n) => dashboardId(`dashboard-${n}`));
  const results = await Promise.allSettled([
    ...ids.map((dashboard) => peers.add({ ...home, dashboardId: dashboard })),
    peers.add(home),
    peers.add(home),
  ]);
  assert.equal(results.filter(({ status }) => status === 'rejected').length, 1);
  for (const dashboard of ids) peers.refresh(dashboard, { label: `now ${dashboard}` });
  await Promise.all(ids.slice(5).map((dashboard) => peers.remove(dashboard)));
  const found = (await openPeerTable(directory, quiet)).list();
  assert.deepEqual(found.map(({ label }) => label).toSorted(), [
    'Home',
    ...ids.slice(0, 5).map((dashboard) => `now ${dashboard}`),
  ]);
});

test('An approval that cannot be written fails, and a missing directory is created again', async (t) => {
  const directory = join(await tempDir(t), 'gone');
  await writeFile(directory, 'a file in the place of the directory');
  await assert.rejects(openPeerTable(directory, quiet), { code: 'ENOTDIR' });
  await rm(directory);
  const peers = await openPeerTable(directory, quiet);
  await writeFile(directory, 'a file in the place of the directory');
  await assert.rejects(peers.add(home), { code: 'STORAGE' });
  assert.equal(peers.get(id), undefined);
  await rm(directory);
  await peers.add(home);
  assert.equal(peers.get(id)?.label, 'Home');
  await peers.close();
});

test("Another receiver's approvals, revocations and new pairings are known after a reread", async (t) => {
  const directory = await tempDir(t);
  const [one, two] = [await openPeerTable(directory, quiet), await openPeerTable(directory, quiet)];
  await one.add(home);
  await assert.rejects(two.add({ ...home, publicKey: Buffer.alloc(32, 98) }), { code: 'PAIRING' });
  await one.remove(id);
  await one.add(home);
  await two.reread();
  assert.equal(two.get(id)?.pin, one.get(id)?.pin);
  await one.remove(id);
  await two.reread();
  assert.deepEqual(two.list(), []);
  await one.add(home);
  await two.reread();
  await one.remove(id);
  await one.add({ ...home, publicKey: Buffer.alloc(32, 99) });
  await two.reread();
  assert.equal(two.get(id)?.pin, pinOf(Buffer.alloc(32, 99)), 'the newer key counts');
  two.refresh(id, { label: 'now' });
  await two.close();
  const [kept] = (await openPeerTable(directory, quiet)).list();
  assert.deepEqual([kept?.pin, kept?.label], [pinOf(Buffer.alloc(32, 99)), 'now']);
});

test('A peer that this receiver has revoked does not return by a reread, although it is still on disk', async (t) => {
  const directory = await tempDir(t);
  const file = join(directory, 'peers.json');
  const peers = await openPeerTable(directory, quiet);
  await peers.add(home);
  const before = await readFile(file);
  const removal = peers.remove(id);
  await peers.reread();
  assert.equal(peers.get(id), undefined);
  await removal;
  await writeFile(file, before);
  await peers.reread();
  assert.equal(peers.get(id), undefined, 'a write of another receiver that was begun before');
  await write(directory, { peers: [{ ...row, paired_at: Date.now() / 1_000 + 1 }] });
  await peers.reread();
  assert.equal(peers.get(id)?.label, 'Home', 'but who has paired again since is let in');
});

test('A revocation holds even if the clock was set back since the pairing', async (t) => {
  const directory = await tempDir(t);
  const time = { wall: () => (home.pairedAt - 3_600) * 1_000, after: clock.after };
  const peers = await openPeerTable(directory, { clock: time, log: silentLog });
  await peers.add(home);
  assert.equal(await peers.remove(id), true);
  assert.equal(peers.get(id), undefined);
  assert.deepEqual((await openPeerTable(directory, quiet)).list(), []);
  await peers.add({ ...home, pairedAt: home.pairedAt - 3_590 });
  await peers.reread();
  assert.equal(peers.get(id)?.label, 'Home', 'the operator can approve it again');
});

test('A reread of an unreadable file changes nothing and is logged', async (t) => {
  const directory = await tempDir(t);
  const log = recordingLog();
  const peers = await openPeerTable(directory, { clock, log });
  await peers.add(home);
  await rm(join(directory, 'peers.json'));
  await mkdir(join(directory, 'peers.json'));
  await peers.reread();
  assert.equal(peers.get(id)?.label, 'Home');
  assert.deepEqual(log.entries, ['warn: peers file not reread']);
});

test("Two receivers on one directory apply each other's approvals and revocations", async (t) => {
  const directory = await tempDir(t);
  const peer = (letter: string): NewPeer => ({ ...home, dashboardId: dashboardId(letter.repeat(32)) });
  const idsOf = (table: PeerTable): string[] => table.list().map(({ dashboardId: key }) => key[0] ?? '');
  const one = await openPeerTable(directory, quiet);
  await one.add(peer('a'));
  const two = await openPeerTable(directory, quiet);
  await two.add(peer('b'));
  await one.add(peer('c'));
  assert.deepEqual(idsOf(one), ['a', 'b', 'c']);
  await two.remove(peer('a').dashboardId);
  assert.deepEqual(idsOf(two), ['b', 'c']);
  await one.remove(peer('c').dashboardId);
  assert.deepEqual(idsOf(one), ['b'], 'the revocation of the other is not undone');
  assert.deepEqual(idsOf(await openPeerTable(directory, quiet)), ['b']);
});
