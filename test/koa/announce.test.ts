/** When the receiver is announced, re-announced and withdrawn: with an injected publisher and a manual clock. */
import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import type { NetworkInterfaceInfo } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { createReceiver } from '../../src/index.js';
import { createAnnouncer, recheckMs, type Announcer, type Publisher } from '../../src/koa/announce.js';
import type { Announcement, Networks } from '../../src/koa/announcement.js';
import { resolveOptions } from '../../src/options/core.js';
import { standInEsphome } from '../../src/testing/index.js';
import { manualClock, type ManualClock } from '../async/manual-clock.js';
import { recordingLog, type RecordingLog } from '../support/recording-log.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';

interface FakePublisher extends Publisher {
  readonly said: (Announcement | 'withdrawn')[];
  fault: Error | null;
  hangs: boolean;
}

function fakePublisher(): FakePublisher {
  const publisher: FakePublisher = {
    ...{ said: [], fault: null, hangs: false },
    async publish(announcement) {
      if (publisher.hangs) await new Promise(() => {});
      if (publisher.fault) throw publisher.fault;
      publisher.said.push(announcement);
      return announcement.instance;
    },
    async withdraw() {
      if (publisher.hangs) await new Promise(() => {});
      publisher.said.push('withdrawn');
    },
  };
  return publisher;
}

interface Setting {
  readonly announcer: Announcer;
  readonly publisher: FakePublisher;
  readonly clock: ManualClock;
  readonly log: RecordingLog;
  readonly stateDir: string;
  version: string | null;
  addresses: string[];
  /** Advances the clock by five minutes and waits for the check. */
  recheck(): Promise<void>;
}

const bound = { port: 6055, address: '0.0.0.0' };

async function setting(t: TestContext, httpPort?: number): Promise<Setting> {
  const configDir = await tempDir(t);
  const [clock, log, publisher] = [manualClock(), recordingLog(), fakePublisher()];
  let looks = 0;
  const it: Setting = {
    ...{ clock, log, publisher, stateDir: configDir },
    ...{ version: '2026.10.0', addresses: ['192.0.2.2'] },
    announcer: createAnnouncer({
      ...{ publisher, clock, httpPort },
      core: {
        options: resolveOptions({ configDir, stateDir: configDir, friendlyName: 'attic', log }),
        pin: 'ab'.repeat(32),
        async esphomeVersion() {
          looks++;
          if (it.version === null) throw new Error('no ESPHome');
          return it.version;
        },
      },
      networks: (): Networks => ({
        eth0: it.addresses.map((address) => ({ address }) as NetworkInterfaceInfo),
      }),
    }),
    async recheck() {
      const before = looks;
      clock.advance(recheckMs);
      if (it.addresses.length > 0) await waitFor(() => looks > before);
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
  return it;
}

const first = ({ publisher }: Setting): Promise<Announcement> =>
  waitFor(() => publisher.said[0] as Announcement | undefined, { what: 'the announcement' });

test("A bound listener is announced under the name of its id, with the peer link's port unless the host sets one", async (t) => {
  const plain = await setting(t);
  plain.announcer.begin(bound);
  const said = await first(plain);
  const id = (await readFile(join(plain.stateDir, 'dashboard-id'), 'utf8')).trim();
  assert.match(id, /^[A-Za-z0-9_-]{32}$/);
  assert.ok(said.instance.startsWith('esphome-builder'));
  const { version } = JSON.parse(await readFile('package.json', 'utf8')) as { version: string };
  assert.deepEqual(said.txt, {
    ...{ server_version: version, esphome_version: '2026.10.0', friendly_name: 'attic' },
    ...{ pin_sha256: 'ab'.repeat(32), remote_build_port: '6055' },
  });
  assert.deepEqual([said.port, said.addresses], [6055, ['192.0.2.2']]);
  const host = await setting(t, 6052);
  host.announcer.begin(bound);
  const { port, txt } = await first(host);
  assert.deepEqual([port, txt['remote_build_port']], [6052, '6055']);
});

test('The same id gives the same name after a restart', async (t) => {
  const it = await setting(t);
  await writeFile(join(it.stateDir, 'dashboard-id'), 'Kitchen_Server\n');
  it.announcer.begin(bound);
  assert.equal((await first(it)).host, 'esphome-builder-kitchen.local');
});

test('Every five minutes the facts are checked, and only a new address or ESPHome version is announced again', async (t) => {
  const it = await setting(t);
  it.announcer.begin(bound);
  await first(it);
  await it.recheck();
  assert.equal(it.publisher.said.length, 1);
  it.version = '2026.11.0';
  await it.recheck();
  it.addresses = ['192.0.2.3', '192.0.2.2'];
  await it.recheck();
  it.addresses = ['192.0.2.2', '192.0.2.3'];
  await it.recheck();
  const [, second, third, ...more] = it.publisher.said as Announcement[];
  assert.equal(second?.txt['esphome_version'], '2026.11.0');
  assert.deepEqual(third?.addresses, ['192.0.2.2', '192.0.2.3']);
  assert.deepEqual(more, []);
});

test('The last known ESPHome version stays announced when ESPHome fails to answer once', async (t) => {
  const it = await setting(t);
  it.announcer.begin(bound);
  await first(it);
  it.version = null;
  await it.recheck();
  assert.equal(it.publisher.said.length, 1);
  const without = await setting(t);
  without.version = null;
  without.announcer.begin(bound);
  assert.ok(!Object.hasOwn((await first(without)).txt, 'esphome_version'));
});

test('Nothing is announced without an address; a new address is announced, and a lost one is withdrawn', async (t) => {
  const it = await setting(t);
  it.addresses = [];
  it.announcer.begin(bound);
  await waitFor(() => it.log.entries.some((entry) => entry.includes('not announced')));
  it.addresses = ['192.0.2.2'];
  await it.recheck();
  await waitFor(() => it.publisher.said.length === 2);
  it.addresses = [];
  await it.recheck();
  await waitFor(() => it.publisher.said.length === 3);
  await it.recheck();
  assert.deepEqual(
    it.publisher.said.map((said) => (said === 'withdrawn' ? said : 'announced')),
    ['withdrawn', 'announced', 'withdrawn'],
  );
});

test('Of several listeners, the first with a reachable address is announced', async (t) => {
  const it = await setting(t);
  it.announcer.begin({ port: 1000, address: '127.0.0.1' });
  it.announcer.begin({ port: 2000, address: '0.0.0.0' });
  it.announcer.begin({ port: 3000, address: '0.0.0.0' });
  const announced = await waitFor(() => it.publisher.said.find((said) => said !== 'withdrawn'));
  assert.equal(announced.txt['remote_build_port'], '2000');
  await it.recheck();
  assert.equal(it.publisher.said.filter((said) => said !== 'withdrawn').length, 1);
});

test('A publisher failure is logged and retried, and reaches no caller', async (t) => {
  const it = await setting(t);
  it.publisher.fault = new Error('EADDRINUSE');
  it.announcer.begin(bound);
  await waitFor(() => it.log.entries.length > 0);
  assert.match(it.log.entries.join(), /^warn: mDNS announcement failed/);
  it.publisher.fault = null;
  await it.recheck();
  await first(it);
  await it.announcer.close();
  assert.equal(it.publisher.said.at(-1), 'withdrawn');
});

test('After a failed change, the announcement is repeated even if the facts are back to what they were', async (t) => {
  const it = await setting(t);
  it.announcer.begin(bound);
  const said = await first(it);
  it.version = '2026.11.0';
  it.publisher.fault = new Error('no buffer space');
  await it.recheck();
  await waitFor(() => it.log.entries.some((entry) => entry.startsWith('warn')));
  it.version = '2026.10.0';
  it.publisher.fault = null;
  await it.recheck();
  await waitFor(() => it.publisher.said.length === 2);
  assert.deepEqual(it.publisher.said[1], said);
});

test('Closing sends one goodbye and leaves no timer; a listener that begins later is not announced', async (t) => {
  const it = await setting(t);
  it.announcer.begin(bound);
  await first(it);
  await Promise.all([it.announcer.close(), it.announcer.close()]);
  it.announcer.begin(bound);
  it.clock.advance(recheckMs);
  assert.equal(it.clock.waiting, 0);
  assert.deepEqual(it.publisher.said.slice(1), ['withdrawn']);
});

test('A goodbye that hangs delays closing by two seconds at most', async (t) => {
  const it = await setting(t);
  it.publisher.hangs = true;
  it.announcer.begin(bound);
  let isClosed = false;
  const closing = it.announcer.close().then(() => (isClosed = true));
  await waitFor(() => it.clock.waiting === 1, { what: 'the wait for the goodbye' });
  it.clock.advance(1_999);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isClosed, false);
  it.clock.advance(1);
  await closing;
  assert.match(it.log.entries.at(-1) ?? '', /not withdrawn/);
});

test('A receiver that listens on loopback only announces nothing, and withdraws when it closes', async (t) => {
  const configDir = await tempDir(t);
  const [publisher, log] = [fakePublisher(), recordingLog()];
  const receiver = await createReceiver({
    ...{ configDir, esphome: standInEsphome, provisionVersions: false, log, announce: { publisher } },
  });
  t.after(() => receiver.close());
  assert.deepEqual(publisher.said, []);
  await receiver.listen(0, '127.0.0.1');
  await waitFor(() => log.entries.some((entry) => entry.includes('listens on loopback only')));
  await receiver.close();
  assert.deepEqual(publisher.said, ['withdrawn', 'withdrawn']);
});

test('Invalid announce options are refused when the receiver is created, before it creates any file', async (t) => {
  const configDir = await tempDir(t);
  const refused: readonly (readonly [announce: unknown, message: string])[] = [
    [5, 'invalid announce: expected true, false or an object, got 5'],
    ['yes', 'invalid announce: expected true, false or an object, got "yes"'],
    [null, 'invalid announce: expected true, false or an object, got null'],
    [{ port: 1 }, 'unknown option "announce.port" (did you mean "httpPort"?)'],
    [{ httpPort: 0 }, 'invalid announce.httpPort: expected an integer from 1 to 65535, got 0'],
    [
      { interface: 'eth0' },
      'invalid announce.interface: expected an IPv4 address of this machine, got "eth0"',
    ],
    [
      { publisher: {} },
      'invalid announce.publisher: expected an object with the functions publish and withdraw, got an object',
    ],
  ];
  for (const [announce, message] of refused) {
    await assert.rejects(createReceiver({ configDir, announce } as never), { code: 'OPTIONS', message });
  }
  assert.deepEqual(await readdir(configDir), []);
});
