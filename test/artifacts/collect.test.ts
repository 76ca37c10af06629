import assert from 'node:assert/strict';
import { mkdir, rm, symlink, utimes } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

import { collectArtifacts } from '../../src/artifacts/collect.js';
import { verifyBuild } from '../../src/artifacts/firmware.js';
import { isReceiverError } from '../../src/errors.js';
import {
  buildTree,
  built,
  node,
  sidecarFile,
  validated,
  type BuildFacts,
  type BuildTree,
} from './build-tree.js';

async function namesOf(tree: BuildTree): Promise<string[]> {
  const { members } = await collectArtifacts(tree);
  return members.map(({ name }) => name);
}

/** Asserts the refusal's reason and text, and that the text holds no host path. */
async function assertRefused(tree: BuildTree, reason: string, text: RegExp): Promise<void> {
  await assert.rejects(collectArtifacts(tree), (error) => {
    assert.ok(isReceiverError(error, 'ARTIFACTS'), String(error));
    assert.match(error.message, text);
    assert.equal(error.facts.reason, reason);
    assert.equal(error.facts.detail, error.message);
    assert.ok(error.message.length <= 256 && !error.message.includes(tree.dataDir), error.message);
    return true;
  });
}

const env = (...files: readonly string[]): string[] => files.map((file) => `.pioenvs/${node}/${file}`);

interface Shipment extends BuildFacts {
  readonly title: string;
  /** Besides the metadata. */
  readonly outputs: readonly string[];
  readonly idedata?: string;
  readonly hasIni: boolean;
  /** LibreTiny's list of what can be downloaded. */
  readonly list?: readonly unknown[];
  /** All members after storage.json, in order. */
  readonly members: readonly string[];
}

const libreTiny: Omit<Shipment, 'title' | 'espPlatform'> = {
  toolchain: 'platformio',
  firmware: `.pioenvs/${node}/firmware.uf2`,
  outputs: env('raw_firmware.elf', 'firmware.bin', 'firmware.uf2', 'raw_firmware.ota1.elf', 'image.ota.rbl'),
  list: [
    { title: 'OTA', description: 'for updates', filename: 'image.ota.rbl', offset: null, public: true },
    { title: 'Raw', description: 'for tools', filename: 'raw_firmware.ota1.elf', offset: 0, public: false },
  ],
  idedata: `idedata/${node}.json`,
  hasIni: true,
  members: [
    ...['idedata.json', 'platformio.ini', 'build_info.json'],
    ...env('firmware.uf2', 'firmware.bin', 'raw_firmware.elf', 'firmware.json', 'image.ota.rbl'),
  ],
};

const nativeEsp32: Omit<Shipment, 'title' | 'espPlatform'> = {
  toolchain: 'esp-idf',
  firmware: `build/${node}.bin`,
  outputs: [
    ...['build/firmware.factory.bin', 'build/firmware.ota.bin', 'build/firmware.elf', `build/${node}.bin`],
    ...['build/bootloader/bootloader.bin', 'build/partition_table/partition-table.bin'],
    ...['build/ota_data_initial.bin', 'build/flasher_args.json', `build/${node}.elf`, 'sdkconfig.kitchen'],
  ],
  idedata: `idedata/${node}.json`,
  hasIni: false,
  members: [
    ...['idedata.json', 'build_info.json', 'build/firmware.factory.bin', `build/${node}.bin`],
    ...['build/firmware.elf', 'build/bootloader/bootloader.bin', 'build/partition_table/partition-table.bin'],
    ...['build/ota_data_initial.bin', 'build/firmware.ota.bin'],
  ],
};

const shipments: readonly Shipment[] = [
  { title: 'esp32 with ESP-IDF', espPlatform: 'ESP32', ...nativeEsp32 },
  { title: 'esp32-s3 with ESP-IDF', espPlatform: 'ESP32S3', ...nativeEsp32 },
  {
    title: 'esp32 with PlatformIO',
    espPlatform: 'ESP32C3',
    toolchain: 'platformio',
    firmware: `.pioenvs/${node}/firmware.bin`,
    outputs: env(
      ...['firmware.bin', 'firmware.elf', 'firmware.factory.bin', 'firmware.ota.bin', 'bootloader.bin'],
      ...['partitions.bin', 'ota_data_initial.bin', 'firmware.map'],
    ),
    idedata: `idedata/${node}.json`,
    hasIni: true,
    members: [
      ...['idedata.json', 'platformio.ini', 'build_info.json'],
      ...env('firmware.bin', 'firmware.elf', 'firmware.factory.bin', 'firmware.ota.bin', 'bootloader.bin'),
      ...env('partitions.bin', 'ota_data_initial.bin'),
    ],
  },
  {
    title: 'esp8266 with Arduino',
    espPlatform: 'ESP8266',
    toolchain: 'arduino',
    firmware: `.pioenvs/${node}/firmware.bin`,
    outputs: env('firmware.bin', 'firmware.elf', 'firmware.factory.bin', 'firmware.ota.bin'),
    idedata: `idedata/${node}.arduino.json`,
    hasIni: false,
    members: [
      ...['idedata.json', 'build_info.json'],
      ...env('firmware.bin', 'firmware.elf', 'firmware.factory.bin', 'firmware.ota.bin'),
    ],
  },
  {
    title: 'rp2 of an older release',
    espPlatform: 'RP2040',
    toolchain: null,
    firmware: `.pioenvs/${node}/firmware.bin`,
    outputs: env('firmware.elf', 'firmware.bin', 'firmware.uf2', 'firmware.ota.bin'),
    idedata: `idedata/${node}.json`,
    hasIni: true,
    members: [
      ...['idedata.json', 'platformio.ini', 'build_info.json'],
      ...env('firmware.bin', 'firmware.uf2', 'firmware.ota.bin', 'firmware.elf'),
    ],
  },
  ...['BK72XX', 'RTL87XX', 'LN882X'].map((espPlatform) => ({
    title: espPlatform,
    espPlatform,
    ...libreTiny,
  })),
  {
    title: 'nrf52 with PlatformIO',
    espPlatform: 'NRF52',
    toolchain: 'platformio',
    firmware: `.pioenvs/${node}/firmware.bin`,
    outputs: env('firmware.bin', 'firmware.elf', 'firmware.zip', 'zephyr/zephyr.uf2', 'zephyr/zephyr.hex'),
    idedata: `idedata/${node}.json`,
    hasIni: true,
    members: [
      ...['idedata.json', 'platformio.ini', 'build_info.json'],
      ...env('firmware.bin', 'firmware.elf', 'zephyr/zephyr.uf2', 'firmware.zip', 'zephyr/zephyr.hex'),
    ],
  },
  {
    title: 'nrf52 with its own toolchain, which writes neither idedata nor firmware.bin',
    espPlatform: 'NRF52',
    toolchain: 'sdk-nrf',
    firmware: `.pioenvs/${node}/firmware.bin`,
    outputs: env(
      ...['zephyr/zephyr.hex', 'zephyr/app_update.bin', 'zephyr/zephyr/zephyr.bin'],
      ...['zephyr/zephyr/zephyr.elf', 'zephyr/zephyr.elf'],
    ),
    hasIni: true,
    members: [
      ...['idedata.json', 'platformio.ini', 'build_info.json'],
      ...env('zephyr/zephyr.hex', 'zephyr/app_update.bin', 'zephyr/zephyr/zephyr.elf', 'firmware.bin'),
    ],
  },
  {
    title: 'nrf52 with its own toolchain of a release that writes no platformio.ini',
    espPlatform: 'NRF52',
    toolchain: 'sdk-nrf',
    firmware: `.pioenvs/${node}/firmware.bin`,
    outputs: env('zephyr/app_update.bin'),
    hasIni: false,
    members: [
      ...['idedata.json', 'platformio.ini', 'build_info.json'],
      ...env('zephyr/app_update.bin', 'firmware.bin'),
    ],
  },
  {
    title: 'host',
    espPlatform: 'HOST',
    toolchain: 'host',
    firmware: `.pioenvs/${node}/program`,
    outputs: env('program', 'build.ninja', 'esphome_pch.h.gch'),
    hasIni: false,
    members: ['idedata.json', 'platformio.ini', 'build_info.json', ...env('program')],
  },
];

for (const shipment of shipments) {
  test(`A build sends exactly its members, in their order: ${shipment.title}`, async (t) => {
    const tree = await buildTree(t, shipment);
    await tree.add(...built(...shipment.outputs, 'build_info.json', 'src/main.cpp', 'README.txt'));
    if (shipment.idedata !== undefined) await tree.add([shipment.idedata, '{}']);
    if (shipment.list !== undefined) {
      await tree.add([`build/${node}/.pioenvs/${node}/firmware.json`, JSON.stringify(shipment.list)]);
    }
    if (shipment.hasIni) await tree.add(...built('platformio.ini'));
    await verifyBuild(tree.paths, tree.configuration);
    const { members, firmwareOffset } = await collectArtifacts(tree);
    assert.deepEqual(
      members.map(({ name }) => name),
      ['storage.json', ...shipment.members],
    );
    assert.equal(firmwareOffset, shipment.espPlatform.startsWith('ESP32') ? '0x10000' : '0x0');
    const programs = members.filter(({ executable }) => executable).map(({ name }) => name);
    assert.deepEqual(programs, shipment.espPlatform === 'HOST' ? env('program') : []);
    const bases = members.map(({ name }) => name.replace(/.*\//, ''));
    assert.equal(new Set(bases).size, bases.length, 'no base name comes twice');
  });
}

const host = { espPlatform: 'HOST', toolchain: 'host', firmware: `.pioenvs/${node}/program` } as const;
const esp8266 = {
  espPlatform: 'ESP8266',
  toolchain: 'arduino',
  firmware: `.pioenvs/${node}/firmware.bin`,
} as const;
const bk72xx = { espPlatform: 'BK72XX', toolchain: null, firmware: `.pioenvs/${node}/firmware.uf2` } as const;

async function hostTree(
  t: Parameters<typeof buildTree>[0],
  facts: Partial<BuildFacts> = {},
): Promise<BuildTree> {
  const tree = await buildTree(t, { ...host, ...facts });
  await tree.add(...built(`.pioenvs/${node}/program`));
  return tree;
}

test('A file that the client requires and ESPHome does not write is supplied empty, unless it exists', async (t) => {
  const tree = await hostTree(t);
  const sourceOf = async (name: string) =>
    (await collectArtifacts(tree)).members.find((member) => member.name === name)?.source;
  assert.deepEqual(await sourceOf('platformio.ini'), Buffer.from(''));
  assert.deepEqual(await sourceOf('idedata.json'), Buffer.from('{}'));
  await tree.add([`idedata/${node}.json`, '{"cc_path": "gcc"}']);
  assert.equal(await sourceOf('idedata.json'), join(tree.dataDir, 'idedata', `${node}.json`));
});

test('The files that LibreTiny lists as public are included, if their names are plain', async (t) => {
  const tree = await buildTree(t, bk72xx);
  const outputs = [
    { filename: 'ota.rbl', public: true },
    { filename: 'private.bin', public: false },
    { filename: '../../../../storage/secret', public: true },
    { filename: 7, public: true },
    { filename: 'gone.bin', public: true },
    null,
  ];
  await tree.add(...built(...env('firmware.uf2', 'ota.rbl', 'private.bin'), 'platformio.ini'));
  await tree.add([`idedata/${node}.json`, '{}'], 'storage/secret');
  await tree.add([`build/${node}/.pioenvs/${node}/firmware.json`, JSON.stringify(outputs)]);
  const expected = [
    'storage.json',
    'idedata.json',
    'platformio.ini',
    ...env('firmware.uf2', 'firmware.json'),
  ];
  assert.deepEqual(await namesOf(tree), [...expected, ...env('ota.rbl')]);
  for (const odd of ['{', '{}', 'null', '"x"']) {
    await tree.add([`build/${node}/.pioenvs/${node}/firmware.json`, odd]);
    assert.deepEqual(await namesOf(tree), expected);
  }
});

test('The newer validated configuration is included under its format, unless it is older than the sidecar', async (t) => {
  const tree = await hostTree(t);
  const age = (file: string, seconds: number): Promise<void> =>
    utimes(join(tree.dataDir, file), 1_000_000 - seconds, 1_000_000 - seconds);
  const shipped = async (): Promise<string[]> =>
    (await namesOf(tree)).filter((name) => name.startsWith('validated'));
  await age(sidecarFile, 0);
  assert.deepEqual(await shipped(), []);
  await tree.add(validated.yaml);
  await age(validated.yaml, 10);
  assert.deepEqual(await shipped(), ['validated.yaml']);
  await tree.add(validated.json);
  await age(validated.json, 5);
  assert.deepEqual(await shipped(), ['validated.json']);
  await age(validated.yaml, 1);
  assert.deepEqual(await shipped(), ['validated.yaml']);
  await age(validated.yaml, 61);
  await age(validated.json, 60);
  assert.deepEqual(await shipped(), ['validated.json']);
  await age(validated.json, 60.5);
  assert.deepEqual(await shipped(), []);
});

test("A leftover with the firmware's base name does not take the firmware's place", async (t) => {
  const tree = await hostTree(t, {
    espPlatform: 'ESP32',
    toolchain: 'esp-idf',
    firmware: 'build/firmware.elf',
  });
  await tree.add(...built(...env('firmware.elf'), 'build/firmware.elf'));
  assert.deepEqual(await namesOf(tree), ['storage.json', 'build/firmware.elf']);
});

test('A missing or incomplete sidecar counts as a missing build', async (t) => {
  const gone = await hostTree(t);
  await rm(join(gone.dataDir, sidecarFile));
  await assertRefused(gone, 'build_dir_missing', /the sidecar of the build is missing/);
  for (const name of [null, '../kitchen', 'a b', '-x', '', 'x'.repeat(129)]) {
    const tree = await hostTree(t, { sidecar: { name } });
    await assertRefused(tree, 'build_dir_missing', /no usable name/);
  }
  for (const sidecar of [{ build_path: null }, { firmware_bin_path: null }, { firmware_bin_path: 'None' }]) {
    await assertRefused(
      await hostTree(t, { sidecar }),
      'build_dir_missing',
      /has no (?:build|firmware) path/,
    );
  }
  const swept = await hostTree(t);
  await rm(swept.buildPath, { recursive: true });
  await assertRefused(swept, 'build_dir_missing', /the build directory is missing/);
});

test('The refusal names a required file that is missing', async (t) => {
  const esp = await buildTree(t, esp8266);
  await esp.add(...built(...env('firmware.elf')));
  await assertRefused(esp, 'build_dir_missing', /^the build has no idedata.json$/);
  await esp.add([`idedata/${node}.arduino.json`, '{}']);
  await assertRefused(esp, 'pack_failed', /^the firmware ".pioenvs\/kitchen\/firmware.bin" is missing$/);
  const tiny = await buildTree(t, bk72xx);
  await tiny.add([`idedata/${node}.json`, '{}']);
  await assertRefused(tiny, 'build_dir_missing', /^the build has no platformio.ini$/);
});

test('The refusal names a platform without a list of files', async (t) => {
  const tree = await hostTree(t, { espPlatform: 'RP2350' });
  await assertRefused(tree, 'pack_failed', /no list of files for the platform "RP2350"/);
});

test('A build or a firmware outside the data directory is refused, in every spelling', async (t) => {
  const other = await hostTree(t);
  const at = (build: string, firmware: string): Readonly<Record<string, string>> => ({
    build_path: build,
    firmware_bin_path: firmware,
  });
  const outside = at(other.buildPath, join(other.buildPath, host.firmware));
  await assertRefused(await hostTree(t, { sidecar: outside }), 'pack_failed', /build directory lies outside/);
  const tree = await hostTree(t);
  const sneaky = [
    [at(tree.buildPath, `${tree.buildPath}/../../storage/secret`), /firmware lies outside/],
    [at(tree.buildPath, '/etc/hostname'), /firmware lies outside/],
    [at(tree.buildPath, tree.buildPath), /firmware lies outside/],
    [at(tree.dataDir, join(tree.dataDir, 'storage', 'x')), /build directory lies outside/],
    [at('/', '/etc/hostname'), /build directory lies outside/],
  ] as const;
  for (const [sidecar, text] of sneaky) {
    const whole = { storage_version: 1, name: node, esp_platform: 'HOST', toolchain: 'host', ...sidecar };
    await tree.add([sidecarFile, JSON.stringify(whole)]);
    await assertRefused(tree, 'pack_failed', text);
  }
});

test('A link is refused at every level', async (t) => {
  const inside = await hostTree(t);
  await symlink(`.pioenvs/${node}/program`, join(inside.buildPath, 'build_info.json'));
  await assertRefused(inside, 'pack_failed', /"build_info.json" is not a regular file/);
  const secret = await hostTree(t);
  await secret.add('secret');
  const target = join(secret.dataDir, 'secret');
  const places = [
    `build/${node}/.pioenvs/${node}/program`,
    `build/${node}/platformio.ini`,
    `build/${node}/build_info.json`,
    `idedata/${node}.json`,
    validated.json,
  ];
  for (const place of places) {
    const tree = await hostTree(t);
    await rm(join(tree.dataDir, place), { force: true });
    await mkdir(dirname(join(tree.dataDir, place)), { recursive: true });
    await symlink(target, join(tree.dataDir, place));
    await assertRefused(tree, 'pack_failed', /lies outside/);
  }
  const sidecar = await hostTree(t);
  await rm(join(sidecar.dataDir, sidecarFile));
  await symlink(target, join(sidecar.dataDir, sidecarFile));
  await assertRefused(sidecar, 'pack_failed', /sidecar of the build lies outside/);
  for (const place of [`build/${node}/.pioenvs`, `build/${node}`, 'idedata', 'build']) {
    const tree = await hostTree(t);
    await tree.add([`idedata/${node}.json`, '{}']);
    await rm(join(tree.dataDir, place), { recursive: true });
    await secret.add([`idedata/${node}.json`, '{}']);
    await symlink(join(secret.dataDir, place), join(tree.dataDir, place));
    await assertRefused(tree, 'pack_failed', /lies outside/);
  }
});

test('A directory where a file belongs is refused', async (t) => {
  const tree = await hostTree(t);
  await mkdir(join(tree.buildPath, 'build_info.json'));
  await assertRefused(tree, 'pack_failed', /"build_info.json" is not a regular file/);
});

test('Files over the limit are refused before anything is packed', async (t) => {
  const tree = await hostTree(t);
  const { members } = await collectArtifacts(tree);
  const bytes = members.reduce((sum, { size }) => sum + size, 0);
  await collectArtifacts({ ...tree, maxBytes: bytes });
  await assert.rejects(collectArtifacts({ ...tree, maxBytes: bytes - 1 }), { code: 'ARTIFACTS' });
});
