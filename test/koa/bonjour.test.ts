/** The publisher with the real bonjour-service, on the loopback adapter only. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';

import { silentLog } from '../../src/log.js';
import { loadBonjour } from '../../src/koa/bonjour.js';
import type { Announcement } from '../../src/koa/announcement.js';
import type { Publisher } from '../../src/koa/announce.js';
import { recordingLog, type RecordingLog } from '../support/recording-log.js';
import type { Cleanups } from '../support/temp-dir.js';
import { freeUdpPort, loopback, recordPackets, watch } from './loopback-mdns.js';

const name = 'esphome-builder-abcdefgh';
const announcement: Announcement = {
  ...{ type: 'esphomebuilder', instance: name, host: `${name}.local`, port: 6052 },
  txt: { server_version: '0.1.0', friendly_name: 'Küche', remote_build_port: '6055' },
  addresses: ['192.0.2.77', '2001:db8::7'],
};
const changed: Announcement = {
  ...announcement,
  txt: { ...announcement.txt, esphome_version: '2026.11.0' },
  addresses: ['192.0.2.78'],
};

async function publisherOn(t: Cleanups, port: number, log = silentLog): Promise<Publisher> {
  const publisher = (await loadBonjour())({ log, via: loopback, port });
  t.after(() => publisher.withdraw());
  return publisher;
}

test('A browser sees the announcement with our addresses and no others, and then the goodbye', async (t) => {
  const port = await freeUdpPort();
  const watcher = watch(t, port);
  const packets = await recordPackets(t, port);
  const publisher = await publisherOn(t, port);
  assert.equal(await publisher.publish(announcement), name);
  const seen = await watcher.seen(`up ${name}`);
  assert.deepEqual(
    [seen.host, seen.port, seen.txt, seen.addresses],
    [`${name}.local`, 6052, announcement.txt, announcement.addresses],
  );
  await publisher.withdraw();
  await watcher.seen(`down ${name}`);
  const meta = packets.filter((packet) => packet.includes('_services'));
  assert.equal(meta.length, 1, 'the type as such is announced and not taken back');
  await publisher.withdraw();
});

test('A change replaces the announcement without a goodbye', async (t) => {
  const port = await freeUdpPort();
  const watcher = watch(t, port);
  const publisher = await publisherOn(t, port);
  await publisher.publish(announcement);
  await watcher.seen(`up ${name}`);
  assert.equal(await publisher.publish(changed), name);
  assert.deepEqual((await watcher.seen(`txt ${name}`)).txt, changed.txt);
  assert.deepEqual(watcher.events, [`up ${name}`, `txt ${name}`]);
});

test('If the name is taken, the next name is announced and the other machine stays listed', async (t) => {
  // The library prints it on the console.
  const printed = t.mock.method(console, 'log', () => {});
  const port = await freeUdpPort();
  const watcher = watch(t, port);
  const log: RecordingLog = recordingLog();
  await (await publisherOn(t, port)).publish(announcement);
  const second = await publisherOn(t, port, log);
  assert.equal(await second.publish(announcement), `${name}-2`);
  assert.equal(await second.publish(changed), `${name}-2`, 'and stays with it');
  await watcher.seen(`txt ${name}-2`);
  assert.equal((await watcher.seen(`up ${name}-2`)).host, `${name}.local`);
  await second.withdraw();
  await watcher.seen(`down ${name}-2`);
  assert.ok(!watcher.events.includes(`down ${name}`), watcher.events.join());
  assert.deepEqual(log.entries, ['warn: mDNS name is taken by another machine']);
  assert.equal(printed.mock.callCount(), 1);
});

test('A port in exclusive use makes publish fail, and nothing else; publish works once the port is free', async (t) => {
  const port = await freeUdpPort();
  const greedy = createSocket('udp4').bind(port);
  await once(greedy, 'listening');
  const publisher = await publisherOn(t, port);
  await assert.rejects(publisher.publish(announcement), { code: 'EADDRINUSE' });
  greedy.close();
  await once(greedy, 'close');
  assert.equal(await publisher.publish(announcement), name);
});

test('For an address that no adapter has, nothing is announced, on any adapter', async () => {
  const make = await loadBonjour();
  const publisher = make({ log: silentLog, via: '192.0.2.250', port: await freeUdpPort() });
  await assert.rejects(publisher.publish(announcement), { code: 'STATE', message: /no network adapter/ });
});

test('Withdrawing during a publish ends the publish, and nothing is announced', async (t) => {
  const port = await freeUdpPort();
  const packets = await recordPackets(t, port);
  const publisher = await publisherOn(t, port);
  for (const isSecond of [false, true]) {
    const publishing = assert.rejects(publisher.publish(announcement), { code: 'CANCELLED' });
    if (isSecond) await Promise.resolve();
    await publisher.withdraw();
    await publishing;
  }
  const isResponse = (packet: Buffer): boolean => ((packet[2] ?? 0) & 0x80) !== 0;
  assert.deepEqual(packets.filter(isResponse), []);
});

test('Withdrawing before a name conflict is detected sends no goodbye for the owner of the name', async (t) => {
  const port = await freeUdpPort();
  const watcher = watch(t, port);
  const owner = await publisherOn(t, port);
  await owner.publish(announcement);
  await watcher.seen(`up ${name}`);
  const second = await publisherOn(t, port);
  const publishing = assert.rejects(second.publish(announcement), { code: 'CANCELLED' });
  await Promise.resolve();
  await second.withdraw();
  await publishing;
  await owner.publish(changed);
  await watcher.seen(`txt ${name}`);
  assert.deepEqual(watcher.events, [`up ${name}`, `txt ${name}`]);
});

test('Without the library, the error names it; any other load error is passed on', async () => {
  const missing = Object.assign(new Error('no'), { code: 'ERR_MODULE_NOT_FOUND' });
  const options = { code: 'OPTIONS', message: /npm install bonjour-service/ };
  await assert.rejects(
    loadBonjour(() => Promise.reject(missing)),
    options,
  );
  await assert.rejects(
    loadBonjour(() => Promise.reject(new Error('broken'))),
    { message: 'broken' },
  );
});
