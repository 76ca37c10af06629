/** Covers src/errors.ts. */
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

test('a file name can contain letters of any script, spaces, signs and emoji', () => {
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
    'lamp (copy).yaml',
    'lamp (1).yaml',
    'lamp+fan.yaml',
    'tür&tor.yaml',
    "john's.yaml",
    '#1.yaml',
    'a@home.yaml',
    '100%.yaml',
    '50%41.yaml',
    '💡.yaml',
    '½ bath.yaml',
    'wait….yaml',
    'R&D; lab=2, [old] {x} ~1^!.yaml',
    '$(id).yaml',
    '~root.yaml',
    ' kitchen.yaml',
    'kitchen..yaml',
    'kitchen .yaml',
    `${'ü'.repeat(125)}.yaml`,
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
  ['ends in a space', 'kitchen.yaml '],
  ['ends in a dot', 'kitchen.yaml.'],
  ['holds a slash', 'a/b.yaml'],
  ['holds a backslash', 'a\\b.yaml'],
  ['is a dot segment', '..'],
  ['climbs', '../x.yaml'],
  ['holds a drive', 'C:kitchen.yaml'],
  ['holds an alternate stream', 'kitchen.yaml:evil.yaml'],
  ['holds a NUL', 'kitchen\0.yaml'],
  ['holds a line end', 'kitchen\n.yaml'],
  ['holds a double quote', 'a"b.yaml'],
  ['holds a question mark', 'a?.yaml'],
  ['holds an angle bracket', '<a>.yaml'],
  ['holds a pipe', 'a|b.yaml'],
  ['holds a wildcard', '*.yaml'],
  ['begins with encoded dots', '%2e%2e.yaml'],
  ['holds an encoded slash', 'a%2Fb.yaml'],
  ['holds an encoded backslash', 'a%5cb.yaml'],
  ['holds a slash that is encoded twice', 'a%252fb.yaml'],
  ['holds an encoded NUL', 'kitchen%00.yaml'],
  ['holds a slash in overlong UTF-8', 'a%c0%afb.yaml'],
  ['holds a slash as %u002f', 'a%u002fb.yaml'],
  ['holds a slash as HTML writes it', 'a&#x2f;b.yaml'],
  ['holds a slash as a decimal HTML form', 'a&#47;b.yaml'],
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
  ['holds an ideographic space', 'a\u3000b.yaml'],
  ['begins with a one-dot leader', '\u2024yaml.yaml'],
  ['is over 255 bytes', `${'ü'.repeat(125)}x.yaml`],
];

for (const [why, name] of refusedNames) {
  test(`a file name that ${why} is refused and never repaired`, () => {
    refused(() => fileName(name));
    refused(() => deviceFromFile(name));
  });
}

test('the refusal shows the text shortened, with letters unchanged and invisible characters escaped', () => {
  assert.throws(
    () => fileName(`Küche 厨房 💡\u202e\x1b[31m\u3164${'x'.repeat(5000)}`),
    (error: Error) => {
      assert.match(error.message, /Küche 厨房 💡\\u202e\\u001b\[31m\\u3164xxx/);
      assert.doesNotMatch(error.message, /[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}]/u);
      assert.ok(error.message.length < 250);
      return true;
    },
  );
});

test('a plain stem with .yaml is its own device, any other name gets a hash of the whole name', () => {
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
