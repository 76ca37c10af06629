/** The content of an announcement: names, TXT record and addresses, by Device Builder's rules. */
import assert from 'node:assert/strict';
import type { NetworkInterfaceInfo } from 'node:os';
import { test } from 'node:test';

import fc from 'fast-check';

import {
  announcementOf,
  instanceName,
  reachableAddresses,
  type AnnouncedFacts,
  type Networks,
} from '../../src/koa/announcement.js';
import { dashboardId } from '../../src/paths/index.js';

const idText = fc.stringMatching(/^[A-Za-z0-9_-]{8,64}$/);
/** Below, at and above the limit. */
const longName = fc.string({ unit: 'grapheme', minLength: 60, maxLength: 300, size: 'max' });
const facts: AnnouncedFacts = {
  ...{ dashboardId: dashboardId('Ab_cdEFGHijk'), pin: 'ab'.repeat(32), friendlyName: 'Küche' },
  ...{ haAddon: false, serverVersion: '0.1.0', esphomeVersion: '2026.10.0' },
  ...{ bound: { port: 6055, address: '0.0.0.0' }, httpPort: 6052 },
};
const txtOf = (more: Partial<AnnouncedFacts>): Readonly<Record<string, string>> =>
  announcementOf({ ...facts, ...more }, []).txt;

test('Names use the first eight characters of the id, in lower case and with hyphens', () => {
  assert.equal(instanceName(dashboardId('Ab_cdEFGHijk')), 'esphome-builder-ab-cdefg');
  assert.equal(instanceName(dashboardId('__abcdefgh')), 'esphome-builder-abcdef');
  assert.equal(instanceName(dashboardId('________x')), 'esphome-builder');
});

test('For any id, the host name is one DNS label in .local, and the instance is the same label', () => {
  fc.assert(
    fc.property(idText, (id) => {
      const { instance, host } = announcementOf({ ...facts, dashboardId: dashboardId(id) }, []);
      assert.match(instance, /^esphome-builder(?:-[a-z0-9](?:[a-z0-9-]{0,6}[a-z0-9])?)?$/);
      assert.equal(host, `${instance}.local`);
    }),
  );
});

test("The TXT record has Device Builder's keys, with ha_addon only for an add-on", () => {
  const { type, port, txt } = announcementOf(facts, []);
  assert.deepEqual([type, port], ['esphomebuilder', 6052]);
  assert.deepEqual(txt, {
    server_version: '0.1.0',
    esphome_version: '2026.10.0',
    friendly_name: 'Küche',
    pin_sha256: 'ab'.repeat(32),
    remote_build_port: '6055',
  });
  assert.equal(txtOf({ haAddon: true })['ha_addon'], '1');
  assert.equal(txtOf({ friendlyName: ' ' })['friendly_name'], 'esphome-dashboard');
  assert.ok(!Object.hasOwn(txtOf({ esphomeVersion: '' }), 'esphome_version'));
});

test('For any machine name, each string of the TXT record fits and is valid UTF-8', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), longName), (friendlyName) => {
      const said = txtOf({ friendlyName })['friendly_name'] ?? '';
      assert.ok(Buffer.byteLength(`friendly_name=${said}`) <= 255);
      assert.ok(!said.includes('\ufffd') || friendlyName.includes('\ufffd'));
      assert.ok(friendlyName.trim().startsWith(said) || said === 'esphome-dashboard');
    }),
  );
});

const at = (...addresses: string[]): NetworkInterfaceInfo[] =>
  addresses.map((address) => ({ address }) as NetworkInterfaceInfo);
const networks: Networks = {
  lo: at('127.0.0.1', '::1'),
  lo0: at('fe80::1', '192.0.2.99'),
  eth0: at('192.0.2.2', '2001:db8::2', 'fe80::2', 'FE80::3', '127.0.0.2'),
  wlan0: at('198.51.100.7', '169.254.3.4', 'fd00::7'),
  'br-lan': at('203.0.113.1', '192.0.2.2'),
  ...{ docker0: at('172.17.0.1'), hassio: at('172.30.32.1'), veth12: at('10.0.0.1'), cni0: at('10.0.0.2') },
  ...{ virbr0: at('10.0.0.3'), podman0: at('10.0.0.4'), 'vEthernet (WSL)': at('10.0.0.5') },
  'br-0123456789ab': at('10.0.0.6'),
};
const reach = (address: string, via?: string): string[] =>
  reachableAddresses(networks, { port: 1, address }, via);

test('Addresses that are meaningless on other machines are left out, and each of the others appears once', () => {
  assert.deepEqual(reach('::'), ['192.0.2.2', '198.51.100.7', '2001:db8::2', '203.0.113.1', 'fd00::7']);
  assert.deepEqual(reachableAddresses({ eth0: undefined }, { port: 1, address: '::' }), []);
});

test('Only addresses that the listener answers on are announced', () => {
  assert.deepEqual(reach('0.0.0.0'), ['192.0.2.2', '198.51.100.7', '203.0.113.1']);
  assert.deepEqual(reach('198.51.100.7'), ['198.51.100.7']);
  assert.deepEqual(reach('127.0.0.1'), []);
  assert.deepEqual(reach('::1'), []);
});

test('With one adapter chosen, only the addresses of that adapter are announced', () => {
  assert.deepEqual(reach('::', '198.51.100.7'), ['198.51.100.7', 'fd00::7']);
  assert.deepEqual(reach('0.0.0.0', '192.0.2.200'), []);
  assert.deepEqual(reach('0.0.0.0', '127.0.0.1'), []);
});
