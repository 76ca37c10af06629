import assert from 'node:assert/strict';
import { test } from 'node:test';

import { isReceiverError } from '../../src/errors.js';
import { dashboardId, deviceFromFile, fileName, nodeName } from '../../src/paths/index.js';
import { exampleId } from '../support/hostile.js';

const refused = (run: () => unknown): void => {
  assert.throws(
    run,
    (error) => isReceiverError(error, 'TRAVERSAL') && 'rule' in error && error.message.length < 700,
  );
};

test('a dashboard id is 8 to 64 of A-Z a-z 0-9 _ -', () => {
  for (const id of [exampleId, 'a'.repeat(8), '-'.repeat(64), 'ABC_def-123'])
    assert.equal(dashboardId(id), id);
  for (const id of [
    '',
    'a'.repeat(7),
    'a'.repeat(65),
    'abcdefg.',
    'abcdefgh/',
    `${exampleId}\n`,
    'äbcdefghi',
    8,
    null,
    undefined,
  ]) {
    refused(() => dashboardId(id));
  }
});

test('a file name may hold letters of any script and spaces inside', () => {
  for (const name of [
    'kitchen.yaml',
    'Kitchen.yml',
    'living room.yaml',
    'Küche.yaml',
    '厨房.yaml',
    'キノコ.yaml',
    'غرفة١٠.yaml',
    'a..b.yaml',
    'x.YAML',
    'hallway.v2.yaml',
  ]) {
    assert.equal(fileName(name), name);
  }
});

const refusedNames: readonly (readonly [why: string, name: string])[] = [
  ['is empty', ''],
  ['is no YAML file', 'kitchen.txt'],
  ['has no stem', '.yaml'],
  ['begins with a dot', '.esphome.yaml'],
  ['begins with a dash', '-rf.yaml'],
  ['begins with a space', ' kitchen.yaml'],
  ['ends in a space', 'kitchen.yaml '],
  ['ends in a dot', 'kitchen.yaml.'],
  ['has a stem that ends in a dot', 'kitchen..yaml'],
  ['has a stem that ends in a space', 'kitchen .yaml'],
  ['holds a slash', 'a/b.yaml'],
  ['holds a backslash', 'a\\b.yaml'],
  ['is a dot segment', '..'],
  ['climbs', '../x.yaml'],
  ['holds a drive', 'C:kitchen.yaml'],
  ['holds an alternate stream', 'kitchen.yaml:evil.yaml'],
  ['holds a NUL', 'kitchen\0.yaml'],
  ['holds a line end', 'kitchen\n.yaml'],
  ['holds a shell sign', '$(id).yaml'],
  ['holds a quote', "it's.yaml"],
  ['holds a percent form', '%2e%2e.yaml'],
  ['holds a tilde', '~root.yaml'],
  ['holds a wildcard', '*.yaml'],
  ['holds a direction override', 'kit\u202elmay.yaml'],
  ['holds a zero-width space', 'kit\u200bchen.yaml'],
  ['holds a variation selector', 'kitchen\ufe0f.yaml'],
  ['holds a filler letter', 'kit\u3164chen.yaml'],
  ['holds a full-width slash', 'a\uff0fb.yaml'],
  ['holds a full-width dot', '\uff0e\uff0e.yaml'],
  ['holds a division slash', 'a\u2215b.yaml'],
  ['holds a combining solidus', 'a\u0338b.yaml'],
  ['holds an unpaired surrogate', 'a\ud800.yaml'],
  ['holds a no-break space', 'a\u00a0b.yaml'],
  ['is a Windows device', 'con.yaml'],
  ['is a Windows device in capitals', 'NUL.yaml'],
  ['is a Windows device with two endings', 'aux.old.yaml'],
  ['is a Windows device with a superscript', 'com\u00b9.yaml'],
  ['is a Windows device in full width', '\uff43\uff4f\uff4e.yaml'],
  ['is the secrets file', 'secrets.yaml'],
  ['is the secrets file in capitals', 'SECRETS.YML'],
  ['is over 200 bytes', `${'ü'.repeat(98)}.yaml`],
];

for (const [why, name] of refusedNames) {
  test(`a file name that ${why} is refused and never repaired`, () => {
    refused(() => fileName(name));
    refused(() => deviceFromFile(name));
  });
}

test('the refusal shows the text shortened and escaped', () => {
  assert.throws(
    () => fileName(`\u202e\x1b[31m${'x'.repeat(5000)}`),
    (error: Error) => {
      assert.match(error.message, /^[\x20-\x7e…]+$/);
      assert.ok(error.message.length < 250);
      return true;
    },
  );
});

test('a plain stem with .yaml is its own device, every other name gets a hash of the whole', () => {
  assert.equal(deviceFromFile('kitchen.yaml'), 'kitchen');
  const others = [
    'kitchen.yml',
    'Kitchen.yaml',
    'kitchen.YAML',
    'living room.yaml',
    'Küche.yaml',
    'Ku\u0308che.yaml',
    `${'a'.repeat(64)}.yaml`,
    'kitchen.tar.gz.yaml',
  ];
  const devices = others.map(deviceFromFile);
  for (const device of devices) assert.match(device, /^_[0-9a-f]{32}$/);
  assert.equal(new Set(devices).size, others.length);
});

test('a node name from a sidecar cannot leave its directory', () => {
  for (const name of ['kitchen', 'Old_Name-1']) assert.equal(nodeName(name), name);
  for (const name of ['', '.', '..', 'a/b', 'a\\b', 'a.b', 'a\0', 'x'.repeat(129), null, 5])
    refused(() => nodeName(name));
});
