/** Covers src/disk/json-file.ts and src/disk/open-regular.ts. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { isReceiverError } from '../../src/errors.js';
import { loadStorage, parseStorage } from '../../src/esphome/storage-json.js';
import { tempDir } from '../support/temp-dir.js';
import { anyBytesGiveASidecarOrARefusal } from './properties.js';

/** As ESPHome 2026.10 wrote it for a host build. */
const hostSidecar = {
  storage_version: 1,
  name: 't-host',
  friendly_name: null,
  comment: null,
  esphome_version: '2026.10.0',
  src_version: 1,
  address: null,
  web_port: null,
  esp_platform: 'HOST',
  build_path: '/d/build/t-host',
  firmware_bin_path: '/d/build/t-host/.pioenvs/t-host/program',
  loaded_integrations: ['esphome', 'host', 'logger', 'mdns', 'network', 'preferences'],
  loaded_platforms: [],
  no_mdns: false,
  framework: 'host',
  core_platform: 'host',
  toolchain: 'host',
  area: null,
  framework_version: null,
};

test('A sidecar is read with all its fields, and its bytes are kept', async (t) => {
  const path = join(await tempDir(t), 'kitchen.yaml.json');
  const text = `${JSON.stringify(hostSidecar, null, 2)}\n`;
  await writeFile(path, text);
  const { raw, ...fields } = await loadStorage(path);
  assert.equal(raw.toString(), text);
  assert.deepEqual(fields, {
    name: 't-host',
    friendlyName: null,
    comment: null,
    esphomeVersion: '2026.10.0',
    srcVersion: 1,
    address: null,
    webPort: null,
    espPlatform: 'HOST',
    buildPath: '/d/build/t-host',
    firmwareBinPath: '/d/build/t-host/.pioenvs/t-host/program',
    loadedIntegrations: ['esphome', 'host', 'logger', 'mdns', 'network', 'preferences'],
    loadedPlatforms: [],
    noMdns: false,
    framework: 'host',
    corePlatform: 'host',
    toolchain: 'host',
    area: null,
    frameworkVersion: null,
  });
});

test('An old or minimal sidecar loads: only its version is required', () => {
  const bare = parseStorage(Buffer.from('{"storage_version": 1}'));
  assert.equal(bare.name, null);
  assert.deepEqual(bare.loadedIntegrations, []);
  const old = parseStorage(
    Buffer.from(
      '{"storage_version":1,"esphomeyaml_version":"1.9.3","firmware_bin_path":"None","build_path":"None"}',
    ),
  );
  assert.equal(old.esphomeVersion, '1.9.3');
  assert.equal(old.firmwareBinPath, null);
  assert.equal(old.buildPath, null);
});

test('A value of the wrong type counts as missing', () => {
  const odd = parseStorage(
    Buffer.from(
      '{"storage_version":"1","name":7,"build_path":["/etc"],"toolchain":{},"no_mdns":1,"web_port":"80",' +
        '"loaded_integrations":["wifi",3,null],"loaded_platforms":"sensor"}',
    ),
  );
  assert.deepEqual(
    [odd.name, odd.buildPath, odd.toolchain, odd.noMdns, odd.webPort],
    [null, null, null, false, null],
  );
  assert.deepEqual([odd.loadedIntegrations, odd.loadedPlatforms], [['wifi'], []]);
});

test('A missing, an unreadable and a damaged sidecar are distinguished, without a path in the message', async (t) => {
  const root = await tempDir(t);
  const place = (name: string): string => join(root, name);
  await writeFile(place('damaged'), '{"storage_version": 1');
  await writeFile(place('list'), '[{"storage_version": 1}]');
  await writeFile(place('bare'), '{"name": "kitchen"}');
  await writeFile(place('huge'), Buffer.alloc(1024 * 1024 + 1, ' '));
  await mkdir(place('directory'));
  await symlink(place('damaged'), place('link'));
  execFileSync('mkfifo', [place('fifo')]);
  const expected = {
    ...{ gone: 'missing', 'damaged/below': 'missing', damaged: 'damaged', list: 'damaged', bare: 'damaged' },
    ...{ huge: 'unreadable', directory: 'unreadable', link: 'unreadable', fifo: 'unreadable' },
  };
  for (const [name, fault] of Object.entries(expected)) {
    await assert.rejects(loadStorage(place(name)), (error) => {
      assert.ok(isReceiverError(error, 'STORAGE'), name);
      assert.equal(error.facts.fault, fault, name);
      assert.equal(error.facts.path, place(name));
      assert.ok(!error.message.includes(root), error.message);
      return true;
    });
  }
});

test('Any bytes and any JSON give a sidecar or a typed refusal', () => anyBytesGiveASidecarOrARefusal(100));
