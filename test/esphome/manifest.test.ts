import assert from 'node:assert/strict';
import { test } from 'node:test';

import { parseManifest } from '../../src/esphome/manifest.js';
import { anyBytesGiveAManifestOrARefusal } from './properties.js';

const good = { manifest_version: 1, config_filename: 'kitchen.yaml', esphome_version: '2026.10.0' };

function parse(value: unknown): unknown {
  return parseManifest(Buffer.from(JSON.stringify(value)));
}

test('A manifest gives its configuration and its ESPHome, and informational keys are ignored', () => {
  const whole = { ...good, config_dir: '/config', files: ['kitchen.yaml'], has_secrets: true, later: [{}] };
  assert.deepEqual(parse(whole), {
    manifestVersion: 1,
    configFilename: 'kitchen.yaml',
    esphomeVersion: '2026.10.0',
  });
  assert.deepEqual(parse({ ...good, config_filename: 'Küche 1.yml', esphome_version: 7 }), {
    manifestVersion: 1,
    configFilename: 'Küche 1.yml',
    esphomeVersion: null,
  });
});

test('Only the number 1 is accepted as the version', () => {
  for (const version of [2, 0, -1, 1.5, true, '1', null, [1], undefined]) {
    assert.throws(() => parse({ ...good, manifest_version: version }), {
      code: 'BUNDLE',
      message: /unsupported manifest version/,
    });
  }
});

test('The configuration is a plain file name, and never a path', () => {
  const names = [
    ...[
      '../own.yaml',
      '../../../../own.yaml',
      '/etc/own.yaml',
      'sub/kitchen.yaml',
      'a\\b.yaml',
      '.esphome.yaml',
    ],
    ...[
      'secrets.yaml',
      'kitchen.txt',
      '',
      '.yaml',
      'kitchen.yaml\0',
      7,
      null,
      true,
      ['kitchen.yaml'],
      {},
      undefined,
    ],
  ];
  for (const name of names) {
    assert.throws(() => parse({ ...good, config_filename: name }), {
      code: 'BUNDLE',
      message: /invalid configuration name/,
    });
  }
});

test('Anything but a JSON object in UTF-8 is refused', () => {
  const texts = [
    '',
    '{',
    '[]',
    '[1]',
    'null',
    '1',
    '"x"',
    '['.repeat(9_999),
    '{"manifest_version":1,}',
    '\ufeff{}',
  ];
  for (const text of texts) {
    assert.throws(() => parseManifest(Buffer.from(text)), { code: 'BUNDLE', message: /not a JSON object/ });
  }
  const latin1 = Buffer.from(JSON.stringify({ ...good, config_filename: 'Küche.yaml' }), 'latin1');
  assert.throws(() => parseManifest(latin1), { code: 'BUNDLE' });
});

test('A key of the prototype is an ordinary key', () => {
  const text = '{"__proto__": {"manifest_version": 1, "config_filename": "kitchen.yaml"}}';
  assert.throws(() => parseManifest(Buffer.from(text)), {
    code: 'BUNDLE',
    message: /unsupported manifest version/,
  });
});

test('Any bytes and any JSON give a manifest or a typed refusal', () => anyBytesGiveAManifestOrARefusal(100));
