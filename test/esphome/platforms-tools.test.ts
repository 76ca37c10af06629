import assert from 'node:assert/strict';
import { test } from 'node:test';

import { readTarget, toolDirectories } from '../../src/esphome/platforms.js';
import { assertLinear } from '../support/linear.js';

test('The platform is the top-level key, and the framework is the type below it', () => {
  const cases: readonly (readonly [string, string | null, string])[] = [
    ['esphome:\n  name: k\nesp32:\n  board: x\n', 'esp32', 'esp-idf'],
    ['esp32:\n  framework:\n    # type: esp-idf\n\n    type: "arduino" # or not\n', 'esp32', 'arduino'],
    ['esp32: { framework: { type: arduino } }\n', 'esp32', 'arduino'],
    ['esp32:\r\n  framework:\r\n    type: arduino\r\n', 'esp32', 'arduino'],
    ['esp32:\n# a comment\n  framework:\n    type: arduino\n', 'esp32', 'arduino'],
    ['esp32:\n  board: x\nother:\n  type: arduino\n', 'esp32', 'esp-idf'],
    ['esp32:\n  framework:\n    type: ${framework}\n', 'esp32', 'esp-idf'],
    ['"rp2040":\n', 'rp2', 'arduino'],
    ['nrf52:', 'nrf52', 'zephyr'],
    ['host:\n', 'host', 'host'],
    ['esp32_ble:\nesp8266 :\n', 'esp8266', 'arduino'],
    ['  esp32:\n#esp32:\nesp32:x\npackages:\n  esp32: a\nconstructor:\n', null, 'arduino'],
    ['', null, 'arduino'],
  ];
  for (const [text, platform, framework] of cases)
    assert.deepEqual(readTarget(text), { platform, framework }, text);
});

test('A large hostile text is scanned in one pass', () => {
  for (const piece of ['type: ', 'esp32 ', 'esp32:\n', '#', '\r', ' \n']) {
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
