/** Covers src/protocol/intent.ts and src/protocol/wire-json.ts. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';

import * as fc from 'fast-check';

import {
  parseToOffloader,
  parseToReceiver,
  type ToOffloader,
  type ToReceiver,
} from '../../src/protocol/frames.js';
import {
  decodeAnswer,
  decodeIntentMessage,
  decodeIntent,
  encodeIntentMessage,
  encodeIntent,
} from '../../src/protocol/intent.js';
import {
  ackReasons,
  frameTypes,
  intentResponses,
  intents,
  jobStatuses,
  rejectReasons,
  terminateReasons,
  type FrameType,
} from '../../src/protocol/constants.js';
import { decodeObject, encodeObject } from '../../src/protocol/wire-json.js';

const wire = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

const toReceiver: readonly ToReceiver[] = [
  { type: 'ping', nonce: 1 },
  { type: 'pong', nonce: 1 },
  { type: 'terminate', reason: 'client_stopped' },
  {
    type: 'submit_job',
    job_id: '4be1c09a77d2',
    configuration_filename: 'porch-light.yaml',
    target: 'compile',
    total_bundle_bytes: 40_123,
    num_chunks: 2,
    bundle_sha256: 'ab'.repeat(32),
    device_name: 'porch-light',
    device_friendly_name: 'Porch light',
    target_esphome_version: '2026.10.0',
    skip_bootloader: true,
  },
  { type: 'submit_job_chunk', job_id: 'a', chunk_index: 0, data_b64: 'AAAA', is_last: true },
  { type: 'cancel_job', job_id: 'a' },
  { type: 'download_artifacts', job_id: 'a' },
  { type: 'reset_build_env', job_id: 'a' },
];

const toOffloader: readonly ToOffloader[] = [
  { type: 'ping', nonce: 1 },
  { type: 'pong', nonce: 1 },
  { type: 'terminate', reason: 'superseded' },
  { type: 'queue_status', idle: true, running: false, queue_depth: 0 },
  { type: 'submit_job_ack', job_id: 'a', accepted: true },
  {
    type: 'job_state_changed',
    job_id: 'a',
    status: 'failed',
    error_message: '',
    failure_reason: 'provision',
  },
  { type: 'job_output', job_id: 'a', stream: 'stdout', line: 'Compiling\n' },
  {
    type: 'artifacts_start',
    job_id: 'a',
    total_bytes: 1_200_000,
    num_chunks: 37,
    artifacts_sha256: 'cd'.repeat(32),
    firmware_offset: '0x10000',
  },
  { type: 'artifacts_chunk', job_id: 'a', chunk_index: 0, data_b64: 'AAAA', is_last: true },
  { type: 'artifacts_end', job_id: 'a', accepted: false, reason: 'pack_failed', detail: 'too large' },
  { type: 'reset_build_env_ack', job_id: 'a', accepted: false, reason: 'busy' },
];

const directions = [
  { side: 'receiver', parse: parseToReceiver, own: toReceiver, foreign: toOffloader },
  { side: 'offloader', parse: parseToOffloader, own: toOffloader, foreign: toReceiver },
] as const;

test('The tables have the words of the protocol: 5 intents, 5 responses, 9 reasons, 16 frames, 14 ack reasons, and three of our own', () => {
  const sizes = [intents, intentResponses, rejectReasons, frameTypes, ackReasons, jobStatuses].map(
    (table) => Object.keys(table).length,
  );
  assert.deepEqual(sizes, [5, 5, 9, 16, 14 + 3, 5]);
  const travelling = (parse: (bytes: Buffer) => { kind: string }, to: string): FrameType[] =>
    (Object.keys(frameTypes) as FrameType[]).filter((type) => {
      const known = parse(wire({ type })).kind !== 'unknown';
      const said = ['both', to].includes(frameTypes[type].direction);
      assert.equal(known, said, `${type} at ${to}`);
      return known;
    });
  assert.equal(travelling(parseToReceiver, 'to receiver').length, toReceiver.length);
  assert.equal(travelling(parseToOffloader, 'to offloader').length, toOffloader.length);
});

test('No session ends with a word that stops a client for good, except the older of two sessions', () => {
  const said = Object.keys(terminateReasons);
  for (const fatal of ['pin_mismatch', 'receiver_rejected', 'no_approved_peer', '']) {
    assert.ok(!said.includes(fatal), fatal);
  }
});

test('Encoded JSON is compact with unescaped letters, and the last of repeated names wins', () => {
  const line = 'größe "\u{1f525}" \u001b[0m';
  assert.equal(
    encodeObject({ type: 'x', line }).toString(),
    '{"type":"x","line":"größe \\"🔥\\" \\u001b[0m"}',
  );
  assert.deepEqual(parseToReceiver(Buffer.from('{"type":"dance","type":"ping","nonce":1,"nonce":2}')), {
    kind: 'frame',
    frame: { type: 'ping', nonce: 2 },
  });
});

for (const { side, parse, own, foreign } of directions) {
  test(`Every frame to the ${side} survives the wire, and unknown fields are dropped`, () => {
    for (const frame of own) {
      assert.deepEqual(parse(encodeObject(frame)), { kind: 'frame', frame });
      assert.deepEqual(parse(wire({ ...frame, novelty: { deep: [1] } })), { kind: 'frame', frame });
    }
    for (const frame of foreign) {
      if (frameTypes[frame.type].direction === 'both') continue;
      assert.deepEqual(parse(wire(frame)), { kind: 'unknown', type: frame.type });
    }
  });

  test(`A missing or wrongly typed required field of a frame to the ${side} makes it invalid, not malformed`, () => {
    const optional = new Set([
      ...['reason', 'detail', 'failure_reason', 'nonce', 'skip_bootloader'],
      ...['device_name', 'device_friendly_name', 'target_esphome_version'],
    ]);
    for (const frame of own) {
      for (const [field, value] of Object.entries(frame)) {
        if (field === 'type' || optional.has(field)) continue;
        const wrong: unknown[] = [
          undefined,
          null,
          typeof value === 'boolean' ? 1 : true,
          [value],
          { value },
          1.5,
        ];
        if (typeof value === 'number') wrong.push(String(value), 2 ** 53);
        for (const other of wrong) {
          const parsed = parse(wire({ ...frame, [field]: other }));
          const jobId = 'job_id' in frame && field !== 'job_id' ? frame.job_id : '';
          assert.deepEqual(parsed, { kind: 'invalid', type: frame.type, jobId }, `${frame.type}.${field}`);
        }
      }
    }
  });
}

test('Empty strings and negative integers pass the type check', () => {
  const chunk = { type: 'submit_job_chunk', job_id: '', chunk_index: -1, data_b64: '', is_last: false };
  assert.deepEqual(parseToReceiver(wire(chunk)), { kind: 'frame', frame: chunk });
});

test('Link frames have no schema: any nonce is echoed, and any terminate is valid', () => {
  for (const nonce of [0, -1, 'x', null, { a: [1] }, 1.5, true]) {
    assert.deepEqual(parseToReceiver(wire({ type: 'ping', nonce })), {
      kind: 'frame',
      frame: { type: 'ping', nonce },
    });
  }
  assert.deepEqual(parseToReceiver(wire({ type: 'ping' })), { kind: 'frame', frame: { type: 'ping' } });
  for (const reason of [undefined, null, 5, ['x']]) {
    assert.deepEqual(parseToOffloader(wire({ type: 'terminate', reason })), {
      kind: 'frame',
      frame: { type: 'terminate', reason: '' },
    });
  }
});

test('The optional fields of a submitted job are normalised, never refused', () => {
  const base = {
    type: 'submit_job',
    job_id: 'a',
    configuration_filename: 'a.yaml',
    target: 'compile',
    total_bundle_bytes: 1,
    num_chunks: 1,
    bundle_sha256: 'AB'.repeat(32),
  };
  const normal = {
    ...base,
    bundle_sha256: 'ab'.repeat(32),
    device_name: '',
    device_friendly_name: '',
    target_esphome_version: '',
    skip_bootloader: false,
  };
  for (const fields of [
    {},
    { device_name: 5, device_friendly_name: null, target_esphome_version: 2026, skip_bootloader: 1 },
    { device_name: 'x'.repeat(257), target_esphome_version: 'latest', skip_bootloader: 'true' },
    { target_esphome_version: `1.${'0'.repeat(70)}` },
  ]) {
    assert.deepEqual(parseToReceiver(wire({ ...base, ...fields })), { kind: 'frame', frame: normal });
  }
});

test('Only one JSON object in strict UTF-8 is a frame; everything else is malformed', () => {
  const malformed: (string | Buffer)[] = [
    ...['', ' ', '[]', 'null', '"ping"', '5', '{', '{}{}', '{"type":"ping"', "{'type':'ping'}"],
    ...['{"nonce":NaN,"type":"ping"}', '{"nonce":Infinity}', '{"type":"ping",}'],
    '\ufeff{"type":"ping"}',
    '{"type":"ping","nonce":"\\ud800"}',
    '{"type":"ping","\\udc00":1}',
    '{"type":"ping","nonce":["\\udc00\\ud800"]}',
    Buffer.from([0x7b, 0x22, 0xc3, 0x28, 0x22, 0x3a, 0x31, 0x7d]),
    Buffer.from([0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x3a, 0x31, 0x7d]),
    Buffer.from([0x7b, 0x22, 0xc0, 0x80, 0x22, 0x3a, 0x31, 0x7d]),
    `{"nonce":${'['.repeat(30_000)}${']'.repeat(30_000)}}`,
    '['.repeat(61_000),
    `${'{"a":'.repeat(33)}1${'}'.repeat(33)}`,
  ];
  for (const message of malformed) {
    assert.deepEqual(
      parseToReceiver(Buffer.from(message)),
      { kind: 'malformed' },
      message.toString().slice(0, 60),
    );
  }
  assert.equal(parseToReceiver(Buffer.from(`${'{"a":'.repeat(31)}1${'}'.repeat(31)}`)).kind, 'unknown');
  assert.equal(
    parseToReceiver(Buffer.from('{"type":"ping","nonce":"\\ud83d\\ude00 \\u0000"}')).kind,
    'frame',
  );
});

test('A message cannot reach prototypes: such names are ordinary fields, not frame types', () => {
  for (const type of ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '']) {
    assert.deepEqual(parseToReceiver(wire({ type })), { kind: 'unknown', type });
    assert.equal(decodeIntent(wire({ intent: type })), undefined);
  }
  for (const type of [undefined, null, 5, ['ping'], { ping: 1 }]) {
    assert.deepEqual(parseToReceiver(wire({ type })), { kind: 'unknown', type: undefined });
  }
  const poisoned = Buffer.from('{"type":"cancel_job","__proto__":{"job_id":"a","polluted":true}}');
  assert.equal(parseToReceiver(poisoned).kind, 'invalid', 'a field is not inherited from the message');
  decodeObject(poisoned);
  assert.equal(Reflect.get({}, 'polluted'), undefined);
});

test('Any bytes and any JSON give one of the four outcomes and never an exception', () => {
  const kinds = new Set(['frame', 'unknown', 'invalid', 'malformed']);
  const type = fc.oneof(fc.constantFrom(...Object.keys(frameTypes)), fc.string());
  const fields = fc.dictionary(
    fc.oneof(
      fc.constantFrom(
        'job_id',
        'chunk_index',
        'data_b64',
        'is_last',
        'accepted',
        'reason',
        'nonce',
        '__proto__',
      ),
      fc.string({ unit: 'binary' }),
    ),
    fc.jsonValue(),
  );
  const object = fc.tuple(type, fields).map(([name, rest]) => wire({ ...rest, type: name }));
  const anything = fc.oneof(
    object,
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    fc.jsonValue().map(wire),
  );
  fc.assert(
    fc.property(anything, (message) => {
      assert.ok(kinds.has(parseToReceiver(message).kind));
      assert.ok(kinds.has(parseToOffloader(message).kind));
      decodeIntent(message);
      decodeAnswer(message);
      const hello = decodeIntentMessage(message);
      assert.deepEqual(
        decodeIntentMessage(encodeIntentMessage(hello)),
        hello,
        'what was normalised stays as it is',
      );
    }),
    { numRuns: 2_000 },
  );
});

test('An encoded object can always be decoded, and only lone surrogates are changed', () => {
  const units = fc
    .array(fc.oneof(fc.nat(0x2ff), fc.integer({ min: 0xd7f0, max: 0xe010 })), { maxLength: 20 })
    .map((codes) => String.fromCharCode(...codes));
  fc.assert(
    fc.property(fc.oneof(units, fc.string({ unit: 'binary' }), fc.constant('\\ud800')), (line) => {
      const decoded = decodeObject(encodeObject({ line, nested: [line] }));
      const expected = Buffer.from(line).toString();
      assert.deepEqual(decoded, { line: expected, nested: [expected] });
    }),
    { numRuns: 1_000 },
  );
});

test('A chunk with long data is read like any JSON, whatever surrounds the data or is in it', () => {
  const data = 'QUJD'.repeat(1_100);
  const part = fc.constantFrom(
    ...[
      '"type":"submit_job_chunk"',
      '"chunk_index":3',
      '"is_last":true',
      '"__proto__":{"a":1}',
      '"x":[1]',
      ' ',
    ],
    ...[`"data_b64":"${data}"`, `"data_b64":"${data}="`, `"data_b64" : "${data}"`, '"data_b64":"short"'],
    ...[`"inner":{"data_b64":"${data}"}`, `"data_b64":"${data}\\n"`, `"data_b64":"${data}é"`, '"data_b64":7'],
    ...[`"a\\"b":"data_b64"`, `"data_b64":"${data}`, `"k":"\\"data_b64\\":\\"${data}"`, '}', '{', '"', '\\'],
  );
  const message = fc.array(part, { maxLength: 5 }).map((parts) => `{${parts.join(',')}}`);
  fc.assert(
    fc.property(message, (text) => {
      let expected: unknown;
      try {
        expected = JSON.parse(text);
      } catch {}
      assert.deepEqual(decodeObject(Buffer.from(text)), expected, text.replaceAll(data, '…'));
    }),
    { numRuns: 3_000 },
  );
});

test('A chunk of full size survives the wire with any job id', () => {
  const data_b64 = randomBytes(32_768).toString('base64');
  const chunk = { type: 'submit_job_chunk', chunk_index: 7, data_b64, is_last: false } as const;
  for (const job_id of ['"},{"', '\\ö\ud800\u0000', '']) {
    const expected = { ...chunk, job_id: Buffer.from(job_id).toString() };
    assert.deepEqual(decodeObject(encodeObject({ ...chunk, job_id })), expected);
  }
});

test('The hello is read field by field: wrong types count as absent, names are trimmed and truncated', () => {
  const nothing = {
    dashboardId: '',
    label: '',
    friendlyName: '',
    haAddon: false,
    labelAuto: false,
    connectBackPort: 0,
  };
  for (const payload of [
    Buffer.alloc(0),
    Buffer.from('not json'),
    wire([]),
    wire({
      dashboard_id: 5,
      label: null,
      friendly_name: [],
      ha_addon: 1,
      label_auto: 'true',
      pairing_key: '',
    }),
    wire({ pairing_key: 7, connect_back_port: true, peer_link_port: '6055' }),
  ]) {
    assert.deepEqual(decodeIntentMessage(payload), nothing);
  }
  const hello = decodeIntentMessage(
    wire({
      dashboard_id: ' id ',
      label: `  ${'\u{1f600}'.repeat(200)}`,
      friendly_name: '\tKitchen \n',
      pairing_key: ' K ',
      ha_addon: true,
      label_auto: true,
      connect_back_port: 6055,
    }),
  );
  assert.deepEqual(hello, {
    dashboardId: ' id ',
    label: '\u{1f600}'.repeat(128),
    friendlyName: 'Kitchen',
    haAddon: true,
    labelAuto: true,
    pairingKey: ' K ',
    connectBackPort: 6055,
  });
  for (const [port, read] of [
    ...[0, -1, 65_536, 1.5, '6055', null, 1e20].map((bad) => [bad, 0] as const),
    ...[1, 65_535].map((good) => [good, good] as const),
  ]) {
    assert.equal(decodeIntentMessage(wire({ connect_back_port: port })).connectBackPort, read, String(port));
    assert.equal(decodeIntentMessage(wire({ peer_link_port: port })).peerLinkPort ?? 0, read, String(port));
  }
});

test('The intent is one of the five words or nothing', () => {
  for (const intent of Object.keys(intents) as (keyof typeof intents)[]) {
    assert.equal(decodeIntent(encodeIntent(intent)), intent);
  }
  for (const payload of ['', '{}', '{"intent":5}', '{"intent":"PREVIEW"}', '["preview"]', '"preview"']) {
    assert.equal(decodeIntent(Buffer.from(payload)), undefined);
  }
});

test('An answer requires only its word; other missing or invalid fields count as absent', () => {
  const bare = {
    intent_response: 'ok',
    reason: undefined,
    esphome_version: '',
    auto_provision_supported: false,
    reset_build_env_supported: false,
    friendly_name: '',
    ha_addon: false,
    requires_pairing_key: undefined,
  };
  assert.deepEqual({ ...bare, ...decodeAnswer(wire({ intent_response: 'ok' })) }, bare);
  const strange = {
    intent_response: 'ok',
    reason: 5,
    esphome_version: '<b>',
    friendly_name: 5,
    ha_addon: 'yes',
    requires_pairing_key: false,
    auto_provision_supported: 1,
  };
  assert.deepEqual({ ...bare, ...decodeAnswer(wire(strange)) }, bare);
  for (const payload of ['', '{}', '{"intent_response":1}', '[]']) {
    assert.equal(decodeAnswer(Buffer.from(payload)), undefined);
  }
});
