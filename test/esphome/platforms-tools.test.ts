import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  buildDirectories,
  readTarget,
  toolDirectories,
  type PlatformKey,
} from '../../src/esphome/platforms.js';
import { assertLinear } from '../support/linear.js';

test('The platform is the top-level key, and the framework is the type below it', () => {
  const cases: readonly (readonly [string, string | null, string])[] = [
    ['esphome:\n  name: k\nesp32:\n  board: x\n', 'esp32', 'esp-idf'],
    ['esp32:\n  framework:\n    # type: esp-idf\n\n    type: "arduino" # or not\n', 'esp32', 'arduino'],
    ['esp32: { framework: { type: arduino } }\n', 'esp32', 'arduino'],
    ['esp32:\r\n  framework:\r\n    type: arduino\r\n', 'esp32', 'arduino'],
    ['esp32:\n# a comment\n  framework:\n    type: arduino\n', 'esp32', 'arduino'],
    ['esp32:\n  board: x\nother:\n  type: arduino\n', 'esp32', 'esp-idf'],
    ['"rp2040":\n', 'rp2', 'arduino'],
    ['nrf52:', 'nrf52', 'zephyr'],
    ['host:\n', 'host', 'host'],
    ['esp32_ble:\nesp8266 :\n', 'esp8266', 'arduino'],
    ['  esp32:\n#esp32:\nesp32:x\npackages:\n  esp32: a\nconstructor:\n', null, 'arduino'],
    ['', null, 'arduino'],
  ];
  for (const [text, platform, framework] of cases) {
    const target = readTarget(text);
    assert.deepEqual([target.platform, target.framework], [platform, framework], text);
  }
});

test('Settings that select other tools make another target, and unusual ones an unknown platform', () => {
  const of = (lines: string): string => {
    const { platform, toolchain, selection } = readTarget(lines);
    return `${platform} ${toolchain} ${selection}`;
  };
  assert.equal(of('esp8266:\n  board: d1_mini\n  toolchain: "platformio" # old\n'), 'esp8266 platformio ');
  assert.equal(of('esp32:\n  board: x\n'), 'esp32 default board=x');
  assert.equal(
    of('esp32:\n  board: x\n  variant: ESP32C3\n  flash_size: 4MB\n'),
    'esp32 default variant=ESP32C3',
  );
  assert.equal(
    of('esp32: {variant: esp32s3, framework: {version: 5.3.2}}\n'),
    'esp32 default variant=esp32s3 version=5.3.2',
  );
  assert.equal(of('bk72xx:\n  board: x\n  framework:\n    version: recommended\n'), 'bk72xx default ');
  const components =
    '  framework:\n    components:\n      - name: a\n        source: github://b\n        ref: v1\n    version: 5.5\n';
  assert.equal(of(`esp32:\n  variant: c3\n${components}`), 'esp32 default variant=c3 version=5.5');
  for (const unusual of [
    'esp32:\n  framework:\n    type: ${framework}\n',
    'esp32:\n  framework:\n    version: ${version}\n',
    'esp32:\n  framework:\n    source: https://example.org/idf.zip\n',
    'esp32:\n  framework: {type: arduino, source: x}\n',
    'esp32: !include board.yaml\n',
    'esp32: *board\n',
    'esp32:\n  <<: *board\n',
    'esphome:\n  platformio_options:\n    platform_packages: x\nesp32:\n  board: x\n',
  ])
    assert.equal(readTarget(unusual).platform, null, unusual);
});

test('YAML that a scan of lines could misread is of an unknown platform, and usual YAML is not', () => {
  const esp32 = 'esp32:\n  board: x\n';
  for (const text of [
    // Texts of several lines.
    'substitutions:\n  a: "\nhost:\n"\n"\\x65sp32":\n  board: x\n',
    "esphome:\n  comment: 'x\nhost:\n'\nesp32:\n  board: x\n",
    `${esp32}  variant: esp32\n   c3\n`,
    `${esp32}  variant: "\n   c3"\n`,
    // Names that are not written as they are read.
    `${esp32}  "tool\\x63hain": platformio\n`,
    `${esp32}  ? toolchain\n  : platformio\n`,
    `${esp32}  !!str toolchain: platformio\n`,
    `${esp32}  &a toolchain: platformio\n`,
    // Settings from elsewhere.
    `.f: &f {type: arduino}\n${esp32}  framework: *f\n`,
    `${esp32}  framework: !include f.yaml\n`,
    `${esp32}  framework:\n    - !include f.yaml\n`,
    `esp32: {board: x, framework: *f}\n`,
    // Brackets that end at the margin, and the line ends of YAML alone.
    'esp32: {board: x,\ntoolchain: platformio}\n',
    'esp32: {board: x\n,toolchain: platformio}\n',
    ...['\x85', '\u2028', '\u2029'].map((end) => `esp32:\n  board: x #${end}  toolchain: platformio\n`),
    'host:\nesp32:\n  board: x\n',
  ])
    assert.equal(readTarget(text).platform, null, text);
  for (const [text, platform] of [
    [`---\n${esp32}\nsensor:\n- platform: dht\n  name: "It's"\n-\n<<: !include common.yaml\n`, 'esp32'],
    ["substitutions: {\n  a: b\n}\nesp8266:\n  board: d1 # it's\n.base: &b\n  x: |\n    host:\n", 'esp8266'],
    [
      `"esp32":\n  framework:\n    sdkconfig_options:\n      CONFIG_X: "y"\n    advanced: { a: [b, 'c'] }\n`,
      'esp32',
    ],
  ] as const)
    assert.equal(readTarget(text).platform, platform, text);
});

test('A build can write to the directories of its toolchain, and to all while that is unknown', () => {
  const cases: readonly (readonly [PlatformKey | null, string, string, string])[] = [
    ['esp32', 'default', '2026.10.0', 'idf'],
    ['esp32', 'default', '2026.9.0', 'idf platformio'],
    ['esp32', 'platformio', '2026.10.0', 'platformio'],
    ['esp32', 'esp-idf', '2026.9.0', 'idf'],
    ['esp8266', 'default', '2026.10.0', 'arduino8266 platformio'],
    ['esp8266', 'arduino', '2026.10.0', 'arduino8266'],
    ['nrf52', 'default', '2026.10.0', 'sdk-nrf'],
    ['bk72xx', 'default', '2026.10.0', 'platformio'],
    [null, 'default', '2026.10.0', 'idf sdk-nrf arduino8266 platformio'],
  ];
  for (const [platform, toolchain, version, expected] of cases)
    assert.equal(buildDirectories(platform, { toolchain, version }).join(' '), expected);
});

test('A large hostile text is scanned in one pass', () => {
  for (const piece of [
    'type: ',
    'esp32 ',
    'esp32:\n',
    '#',
    '\r',
    ' \n',
    'version: a',
    '{',
    '- ',
    ' components:\n',
    '"',
    ': *',
    '[ ',
    '  ?',
    'a: b\n',
  ]) {
    const read = (size: number): void => void readTarget(`esp32:\n  ${piece.repeat(size / piece.length)}`);
    assertLinear(read, 4_000_000, piece);
  }
});

test('Every platform has its own tools and the shared ones', () => {
  assert.deepEqual(toolDirectories('esp32'), ['idf', 'platformio']);
  assert.deepEqual(toolDirectories('esp8266'), ['arduino8266', 'platformio']);
  assert.deepEqual(toolDirectories('nrf52'), ['sdk-nrf', 'platformio']);
  assert.deepEqual(toolDirectories('rp2'), ['platformio']);
  assert.deepEqual(toolDirectories('host'), ['platformio']);
});
