/** The real Device Builder understands what is announced, and has the same rules. No packet leaves this machine. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { silentLog as log } from '../../src/log.js';
import { announcementOf, instanceName, reachableAddresses } from '../../src/koa/announcement.js';
import { loadBonjour } from '../../src/koa/bonjour.js';
import { dashboardId } from '../../src/paths/index.js';
import { idOfSameName } from '../../src/peers/identity.js';
import { freeUdpPort, loopback, recordPackets } from '../koa/loopback-mdns.js';
import { waitFor } from '../support/wait-for.js';
import { askDeviceBuilder } from './device-builder-mdns.js';

const facts = {
  ...{
    dashboardId: dashboardId('Attic_Server-0123456789'),
    pin: 'ab'.repeat(32),
    friendlyName: 'Dachboden ☂',
  },
  ...{ haAddon: true, serverVersion: '0.1.0', esphomeVersion: '2026.10.0' },
  ...{ bound: { port: 6055, address: '::' }, httpPort: 6052 },
};

test('It reads every field that is announced, follows a change at once, and forgets us after the goodbye', async (t) => {
  const port = await freeUdpPort();
  const packets = await recordPackets(t, port);
  const publisher = (await loadBonjour())({ log, via: loopback, port });
  t.after(() => publisher.withdraw());
  const first = announcementOf(facts, ['192.0.2.7', '2001:db8::7']);
  const second = announcementOf({ ...facts, haAddon: false, esphomeVersion: '2026.11.0' }, [
    '192.0.2.8',
    '2001:db8::8',
  ]);
  const responses = (): string[] =>
    packets.filter((packet) => ((packet[2] ?? 0) & 0x80) !== 0).map((packet) => packet.toString('hex'));
  await publisher.publish(first);
  await waitFor(() => responses().length >= 1);
  const announced = responses().length;
  await publisher.publish(second);
  await waitFor(() => responses().length > announced);
  await publisher.withdraw();
  await waitFor(() => responses().length > announced + 1);

  const ids = [
    '',
    ...fc.sample(fc.oneof(fc.string(), fc.base64String(), fc.stringMatching(/^[\w-]{8,40}$/)), 300),
  ];
  const adapters = ['lo', 'lo0', 'eth0', 'docker0', 'hassio', 'veth1', 'cni0', 'virbr0', 'podman1', 'br-lan'];
  adapters.push(
    'vEthernet (WSL)',
    'br-0123456789ab',
    'br-0123456789abc',
    'br-0123456789AB',
    'wlan0',
    'en0',
    'my-lo',
  );
  const name = `${first.instance}._esphomebuilder._tcp.local.`;
  const { peers, hosts, leftOut } = await askDeviceBuilder({ packets: responses(), name, ids, adapters });

  const { addresses, ...peer } = peers[0] ?? assert.fail('the first packet says nothing to it');
  assert.deepEqual(addresses.toSorted(), first.addresses);
  assert.deepEqual(peer, {
    ...{ name: 'esphome-builder-attic-se', hostname: 'esphome-builder-attic-se.local.', port: 6052 },
    ...{
      source: 'mdns',
      server_version: '0.1.0',
      esphome_version: '2026.10.0',
      friendly_name: 'Dachboden ☂',
    },
    ...{ pin_sha256: 'ab'.repeat(32), remote_build_port: 6055, ha_addon: true },
  });
  const changed = peers[announced];
  assert.deepEqual(
    [changed?.esphome_version, changed?.ha_addon, changed?.addresses.toSorted()],
    ['2026.11.0', false, ['192.0.2.8', '2001:db8::8']],
  );
  assert.equal(peers.at(-1), null);

  assert.deepEqual(
    ids.map((id) => `${instanceName(idOfSameName(id))}.local`),
    hosts,
  );
  const isLeftOut = (adapter: string): boolean =>
    reachableAddresses({ [adapter]: [{ address: '192.0.2.1' } as never] }, facts.bound).length === 0;
  assert.deepEqual(adapters.map(isLeftOut), leftOut);
});
