/** Taking over the key and the peers of a Device Builder build server, on real files. */
import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import fc from 'fast-check';

import { systemClock as clock } from '../../src/async/clock.js';
import { instanceName } from '../../src/koa/announcement.js';
import { silentLog as log } from '../../src/log.js';
import { loadDashboardId, identityOf, loadIdentity } from '../../src/peers/identity.js';
import { openPeerTable } from '../../src/peers/peers.js';
import { takeOver } from '../../src/peers/take-over.js';
import { startChild } from '../support/child.js';
import { recordingLog } from '../support/recording-log.js';
import { tempDir } from '../support/temp-dir.js';

const key = Buffer.alloc(32, 7);
const keyName = '.device-builder-peer-link-key.bin';
const peersName = '.receiver_peers.json';
const row = (id: string, more: object = {}): object => ({
  ...{ dashboard_id: id, pin_sha256: 'ab'.repeat(32), static_x25519_pub: 'AAAA\n', label: 'Home' },
  ...{ paired_at: 1.5, ...more },
});

interface Servers {
  readonly from: string;
  readonly stateDir: string;
  again(): Promise<void>;
}

async function servers(t: TestContext, peers: unknown, theirKey: Buffer | null = key): Promise<Servers> {
  const base = await tempDir(t);
  const [from, stateDir] = [join(base, 'config'), join(base, 'state')];
  await mkdir(from);
  if (theirKey !== null) await writeFile(join(from, keyName), theirKey);
  if (peers !== undefined) {
    const text = typeof peers === 'string' ? peers : JSON.stringify({ peers });
    await writeFile(join(from, peersName), text);
  }
  return { from, stateDir, again: () => takeOver({ from, stateDir, log }) };
}

const stateOf = async ({ stateDir }: Servers): Promise<string[]> => readdir(stateDir).catch(() => []);

test('Its key becomes ours and its peers are paired; unknown fields are kept, and its files are unchanged', async (t) => {
  const both = await servers(t, [
    row('dashboard-one', { colour: 'red' }),
    { dashboard_id: 'broken' },
    row('dashboard-two'),
  ]);
  const before = await readFile(join(both.from, peersName), 'utf8');
  await both.again();
  const { pin } = await loadIdentity(both.stateDir, log);
  assert.equal(pin, identityOf(key).pin);
  const table = await openPeerTable(both.stateDir, { clock, log });
  assert.deepEqual(
    table.list().map(({ dashboardId }) => dashboardId as string),
    ['dashboard-one', 'dashboard-two'],
  );
  assert.match(await readFile(join(both.stateDir, 'peers.json'), 'utf8'), /"colour":"red"/);
  assert.equal(await readFile(join(both.from, peersName), 'utf8'), before);
  assert.deepEqual((await readdir(both.from)).toSorted(), [keyName, peersName]);
});

test('It is announced under the same name: the id is taken from the block of either release, in any form', async (t) => {
  const id = (text: unknown): object => ({ dashboard_id: text });
  const long = 'AbCdEfGh_jklmnopqrstuvwxyz012345';
  for (const [settings, name, kept] of [
    [{ _dashboard_identity: id(long), _remote_build: id('legacy-id') }, 'abcdefgh', long],
    [{ _remote_build: { ...id('Legacy-Id'), enabled: true } }, 'legacy-i', 'Legacy-Id'],
    [{ _dashboard_identity: id(''), _remote_build: id('older-one') }, 'older-on', 'older-one'],
    [{ _dashboard_identity: id('My Attic!') }, 'myattic'],
    [{ _dashboard_identity: id('a_') }, 'a'],
    [{ _dashboard_identity: id('\u00e9\u00e8') }, ''],
    [{ _dashboard_identity: id('q'.repeat(500)) }, 'qqqqqqqq'],
  ] as const) {
    const both = await servers(t, []);
    await writeFile(join(both.from, '.device-builder.json'), JSON.stringify(settings));
    await both.again();
    const ours = await loadDashboardId(both.stateDir, log);
    assert.equal(instanceName(ours), name === '' ? 'esphome-builder' : `esphome-builder-${name}`);
    if (kept !== undefined) assert.equal(ours, kept);
    await rm(join(both.from, '.device-builder.json'));
    await both.again();
    assert.equal(await loadDashboardId(both.stateDir, log), ours);
  }
});

test('Settings without an id, or damaged ones, lose the name and nothing else', async (t) => {
  for (const settings of [
    '',
    '{',
    '5',
    '[]',
    '{"_dashboard_identity": {"dashboard_id": 5}}',
    '{"_remote_build": null}',
  ]) {
    const both = await servers(t, [row('dashboard-one')]);
    const warned = recordingLog();
    await writeFile(join(both.from, '.device-builder.json'), settings);
    await takeOver({ ...both, log: warned });
    assert.deepEqual((await stateOf(both)).toSorted(), ['identity.key', 'peers.json']);
    assert.match(warned.entries.join(), /have no dashboard id/);
  }
});

test('It happens once: a peer that was revoked here does not return, and the other files can be deleted', async (t) => {
  const both = await servers(t, [row('dashboard-one'), row('dashboard-two')]);
  await both.again();
  const table = await openPeerTable(both.stateDir, { clock, log });
  await table.remove(table.list()[0]?.dashboardId as never);
  await table.close();
  await both.again();
  await rm(join(both.from, keyName));
  await both.again();
  const [only] = (await openPeerTable(both.stateDir, { clock, log })).list();
  assert.equal(only?.dashboardId, 'dashboard-two');
});

test('A server without peers is taken over as well', async (t) => {
  const both = await servers(t, undefined);
  await both.again();
  assert.deepEqual((await openPeerTable(both.stateDir, { clock, log })).list(), []);
});

test('A takeover that was interrupted before the key starts again', async (t) => {
  const both = await servers(t, [row('dashboard-one')]);
  await mkdir(both.stateDir);
  await writeFile(
    join(both.stateDir, 'peers.json'),
    await readFile(join(both.from, peersName), 'utf8').then((text) => text.replace('{', '{"version":1,')),
  );
  await both.again();
  assert.equal((await openPeerTable(both.stateDir, { clock, log })).list().length, 1);
  assert.deepEqual((await stateOf(both)).toSorted(), ['identity.key', 'peers.json']);
});

test('A key that was lost since the takeover is not fetched again beside other peers, unless newIdentity is set', async (t) => {
  for (const peers of [[], [row('dashboard-two')], 'damaged']) {
    const both = await servers(t, [row('dashboard-one'), row('dashboard-two')]);
    await mkdir(both.stateDir);
    const own = typeof peers === 'string' ? peers : JSON.stringify({ version: 1, peers });
    await writeFile(join(both.stateDir, 'peers.json'), own);
    await assert.rejects(both.again(), {
      code: 'STATE',
      message: /identity\.key is missing beside a peers\.json/,
    });
    assert.equal(await readFile(join(both.stateDir, 'peers.json'), 'utf8'), own);
    assert.deepEqual(await stateOf(both), ['peers.json']);
    await takeOver({ from: both.from, stateDir: both.stateDir, newIdentity: true, log });
    assert.equal((await openPeerTable(both.stateDir, { clock, log })).list().length, 2);
    const aside = (await stateOf(both)).find((name) => name.includes('unusable')) ?? '';
    assert.equal(await readFile(join(both.stateDir, aside), 'utf8'), own);
  }
});

test("A damaged or lost key is left to the receiver's own refusal, which says how to restore it", async (t) => {
  const both = await servers(t, [row('dashboard-one')]);
  await both.again();
  await writeFile(join(both.stateDir, 'identity.key'), '');
  await both.again();
  await assert.rejects(loadIdentity(both.stateDir, log, { newIdentity: false }), {
    code: 'STATE',
    message: /restore identity\.key/,
  });
  await rm(join(both.stateDir, 'identity.key'));
  await rm(join(both.from, keyName));
  await both.again();
  assert.deepEqual(await stateOf(both), ['peers.json']);
});

test('Unusable files are reported, and nothing is taken over', async (t) => {
  const cases: readonly (readonly [RegExp, unknown, (Buffer | null)?])[] = [
    [/has no key/, [], null],
    [/key is damaged/, [], Buffer.alloc(31)],
    [/peers file is damaged/, '{"peers": 5}'],
    [/peers file is damaged/, '{"peers": ['],
    [/newer release/, '{"version": 2, "peers": []}'],
  ];
  for (const [message, peers, theirKey = key] of cases) {
    const both = await servers(t, peers, theirKey);
    await assert.rejects(both.again(), { code: 'STATE', message });
    assert.deepEqual(await stateOf(both), [], String(message));
  }
});

test('A receiver with another key keeps it, because its peers would otherwise stop for good', async (t) => {
  const both = await servers(t, []);
  const own = await loadIdentity(both.stateDir, log);
  await assert.rejects(both.again(), { code: 'STATE', message: /already has a key of its own/ });
  assert.equal((await loadIdentity(both.stateDir, log)).pin, own.pin);
});

test('A running server is not taken over', async (t) => {
  const both = await servers(t, []);
  const dataDir = join(both.from, '.esphome');
  await mkdir(dataDir);
  const lock = join(dataDir, '.device-builder.lock');
  await writeFile(lock, '{}');
  const holder = await startChild(t, ['flock', lock, 'sh', '-c', 'echo held; exec sleep 600']);
  await holder.printed(/held/);
  await assert.rejects(both.again(), { code: 'STATE', message: /stop it first/ });
  assert.deepEqual(await stateOf(both), []);
  holder.signal('SIGKILL');
  await holder.ended;
  await both.again();
});

test(
  'An unreadable file is an error and does not count as missing',
  { skip: process.getuid?.() === 0 },
  async (t) => {
    const both = await servers(t, []);
    await chmod(join(both.from, peersName), 0);
    await assert.rejects(both.again(), { code: 'EACCES' });
    assert.deepEqual(await stateOf(both), []);
  },
);

test('Any content of the peers file is taken over or refused with a message', async (t) => {
  const both = await servers(t, '');
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(
        fc.json(),
        fc.string(),
        fc.array(fc.object()).map((peers) => JSON.stringify({ peers })),
      ),
      async (text) => {
        await writeFile(join(both.from, peersName), text);
        const isTaken = await both.again().then(
          () => true,
          (error: { code?: string }) => (assert.equal(error.code, 'STATE'), false),
        );
        assert.equal((await stateOf(both)).includes('identity.key'), isTaken);
        await rm(both.stateDir, { recursive: true, force: true });
      },
    ),
    { numRuns: 60 },
  );
});
