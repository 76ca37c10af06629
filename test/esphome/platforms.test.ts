import assert from 'node:assert/strict';
import { test } from 'node:test';

import { firmwareOffset, platformKey, platformRow, toolchainRow } from '../../src/esphome/platforms.js';
import { platforms as standIns } from '../../src/testing/stand-in-tree.js';

/** What ESPHome 2026.10 writes as `esp_platform` for the esp32 family. */
const variants = [
  ...['ESP32', 'ESP32C2', 'ESP32C3', 'ESP32C5', 'ESP32C6', 'ESP32C61', 'ESP32H2', 'ESP32H21', 'ESP32H4'],
  ...['ESP32P4', 'ESP32S2', 'ESP32S3', 'ESP32S31'],
];

test('Every variant of the esp32 has its row and its offset, even a future one', () => {
  for (const variant of [...variants, 'ESP32X9', 'esp32']) {
    assert.equal(platformKey(variant), 'esp32', variant);
    assert.equal(firmwareOffset(variant), '0x10000', variant);
  }
});

test('The other platforms are found in upper and lower case, and by the name that older releases wrote', () => {
  for (const name of ['ESP8266', 'RP2', 'BK72XX', 'RTL87XX', 'LN882X', 'NRF52', 'HOST']) {
    assert.equal(platformKey(name), name.toLowerCase());
    assert.equal(firmwareOffset(name), '0x0');
  }
  assert.equal(platformKey('RP2040'), 'rp2');
  assert.equal(platformKey('rp2040'), 'rp2');
});

test('A name that ESPHome never writes has no row', () => {
  for (const name of [null, '', 'rp2350', 'libretiny', 'constructor', '__proto__', 'toString', ' esp32']) {
    assert.equal(platformRow(name), null, String(name));
  }
});

test('Each platform’s row contains its firmware', () => {
  for (const [key, build] of standIns) {
    const row = platformRow(build.espPlatform);
    assert.ok(row?.files.includes(build.firmware), key);
  }
});

test('A toolchain determines what the client requires; an unknown or missing one counts as PlatformIO', () => {
  const needs = (toolchain: string | null): string => {
    const { idedata, platformioIni } = toolchainRow(toolchain);
    return `${idedata} ${platformioIni}`;
  };
  assert.equal(needs('platformio'), 'required required');
  assert.equal(needs(null), 'required required');
  assert.equal(needs('toString'), 'required required');
  assert.equal(needs('esp-idf'), 'optional optional');
  assert.equal(needs('arduino'), 'required optional');
  assert.equal(needs('sdk-nrf'), 'supplied supplied');
  assert.equal(needs('host'), 'supplied supplied');
});
