/** Uploads: every rule of the header and of the chunks, and repeated job ids. Covers src/server/ports.ts. */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';

import type { Cleanups } from '../support/temp-dir.js';
import { chunkFrames, headerFrame, jobId, upload } from './bundle-frames.js';
import { linkSetting, offloaderId, settled, until, type Client, type Setting } from './setting.js';

const bundle = Buffer.alloc(80_000, 'bundle');

async function open(t: Cleanups): Promise<Setting & { readonly client: Client }> {
  const setting = await linkSetting(t);
  return { ...setting, client: await setting.session() };
}

/** Expects the refusal of a frame, and the session to end or stay. */
async function assertRefused(
  client: Client,
  reason: string | RegExp,
  ends: boolean,
  id = jobId,
): Promise<void> {
  const ack = await client.next('submit_job_ack');
  const expectedReason = reason instanceof RegExp ? ack.reason : reason;
  if (reason instanceof RegExp) assert.match(ack.reason ?? '', reason);
  assert.deepEqual(ack, {
    type: 'submit_job_ack',
    job_id: id,
    accepted: false,
    reason: expectedReason,
  });
  if (ends) {
    assert.equal((await client.next('terminate')).reason, 'malformed_frame');
    await until(() => client.isClosed(), 'the end of the session');
    assert.equal(client.frames.at(-1)?.type, 'terminate', 'nothing follows a terminate');
  } else {
    client.send({ type: 'ping', nonce: 1 });
    await client.next('pong');
  }
}

const headers: readonly [rule: string, changes: object, reason: string | RegExp, ends: boolean][] = [
  [
    'a required field is missing: invalid_header, and the session ends',
    { target: undefined },
    'invalid_header',
    true,
  ],
  ['true is not a number', { num_chunks: true }, 'invalid_header', true],
  ['a float is not an integer', { total_bundle_bytes: 1.5 }, 'invalid_header', true],
  ['null is not a string', { bundle_sha256: null }, 'invalid_header', true],
  [
    'a file name with a separator: invalid_header with the rule, the session stays',
    { configuration_filename: '../kitchen.yaml' },
    'invalid_header: the file name: the characters / \\ : * ? " < > | are not allowed',
    false,
  ],
  [
    'a file name that is not YAML',
    { configuration_filename: 'kitchen.txt' },
    /^invalid_header: .*\.yaml or \.yml$/,
    false,
  ],
  ['an overlong job id', { job_id: 'j'.repeat(257) }, /^invalid_header: job_id/, false],
  [
    'a bad file name is reported before a bad target',
    { configuration_filename: '.yaml', target: 'upload' },
    /^invalid_header: .* dot/,
    false,
  ],
  ['target upload: upload_unsupported', { target: 'upload' }, 'upload_unsupported', false],
  ['any other target', { target: 'Compile' }, 'invalid_header', false],
  [
    'a bad target is reported before a bad size',
    { target: 'run', total_bundle_bytes: 0 },
    'invalid_header',
    false,
  ],
  ['no bytes: empty_bundle', { total_bundle_bytes: 0 }, 'empty_bundle', false],
  ['negative bytes, before no chunks', { total_bundle_bytes: -1, num_chunks: 0 }, 'empty_bundle', false],
  ['no chunks: chunk_count_mismatch', { num_chunks: 0 }, 'chunk_count_mismatch', false],
  [
    'no chunks is reported before too many bytes',
    { num_chunks: -1, total_bundle_bytes: 2 ** 40 },
    'chunk_count_mismatch',
    false,
  ],
  ['over 128 MiB: oversized', { total_bundle_bytes: 134_217_729 }, 'oversized', false],
];

suite('submit_job', () => {
  for (const [rule, changes, reason, ends] of headers) {
    test(rule, async (t) => {
      const { client, intakes } = await open(t);
      const frame = headerFrame(bundle, changes);
      client.send(frame);
      await assertRefused(client, reason, ends, frame['job_id'] as string);
      assert.equal(intakes.all.length, 0);
    });
  }

  test('A header without a job id is answered with an empty one', async (t) => {
    const { client } = await open(t);
    client.send({ type: 'submit_job' });
    await assertRefused(client, 'invalid_header', true, '');
  });

  test('A valid header is not answered: up to 128 MiB, in any number of chunks', async (t) => {
    for (const changes of [{}, { total_bundle_bytes: 134_217_728 }, { num_chunks: 2 ** 40 }]) {
      const { client } = await open(t);
      client.send(headerFrame(bundle, changes));
      client.send({ type: 'ping', nonce: 1 });
      await client.next('pong');
      assert.deepEqual(client.all('submit_job_ack'), []);
    }
  });

  test('A second header during an upload: duplicate_submit, and the first upload continues', async (t) => {
    const { client, jobs } = await open(t);
    const [first, ...rest] = chunkFrames(bundle);
    client.send(headerFrame(bundle));
    client.send(first as object);
    client.send(headerFrame(bundle, { job_id: 'another', target: 'upload' }));
    await assertRefused(client, 'duplicate_submit', false, 'another');
    for (const frame of rest) client.send(frame);
    assert.equal((await client.next('submit_job_ack')).accepted, true);
    assert.equal(jobs.records().length, 1);
  });

  test('A target directory outside the builds: invalid_header before any ack, and no file is kept', async (t) => {
    const setting = await linkSetting(t, { isPlaceSafe: () => Promise.resolve(false) });
    const client = await setting.session();
    upload(client, bundle);
    await assertRefused(client, 'invalid_header', false);
    await settled();
    assert.deepEqual([setting.jobs.records(), setting.intakes.all[0]?.ending], [[], 'aborted']);
  });

  test('A target directory that cannot be checked: invalid_header, and nothing is left open', async (t) => {
    const setting = await linkSetting(t, { isPlaceSafe: () => Promise.reject(new Error('EACCES')) });
    const client = await setting.session();
    upload(client, bundle);
    await assertRefused(client, 'invalid_header', false);
    await until(() => setting.intakes.all[0]?.ending === 'aborted', 'the end of the intake');
  });

  test("The header's build fields reach the job, invalid optional values as empty", async (t) => {
    const { client, jobs } = await open(t);
    const odd = {
      device_name: 'x'.repeat(257),
      device_friendly_name: 5,
      target_esphome_version: '--index-url',
    };
    upload(client, bundle, {
      skip_bootloader: 'true',
      target: 'clean',
      configuration_filename: 'Porch light.yaml',
      ...odd,
    });
    await client.next('submit_job_ack');
    const { peerLabel, target, file, device, deviceName, deviceFriendlyName, targetVersion, skipBootloader } =
      jobs.records()[0] ?? assert.fail();
    assert.deepEqual(
      { peerLabel, target, file, deviceName, deviceFriendlyName, targetVersion, skipBootloader },
      {
        peerLabel: 'hass',
        target: 'clean',
        file: 'Porch light.yaml',
        deviceName: '',
        deviceFriendlyName: '',
        targetVersion: '',
        skipBootloader: false,
      },
    );
    assert.match(device, /^_[0-9a-f]{32}$/);
  });
});

type Change = (frames: Record<string, unknown>[]) => object[];
const on =
  (index: number, changes: object): Change =>
  (frames) =>
    frames.map((frame, n) => (n === index ? { ...frame, ...changes } : frame));

const chunks: readonly [
  rule: string,
  Change,
  reason: string,
  ends: boolean,
  kept: boolean,
  header?: object,
][] = [
  [
    'a required field is missing: invalid_chunk, and the session ends',
    on(1, { data_b64: undefined }),
    'invalid_chunk',
    true,
    false,
  ],
  ['a number is not a boolean', on(2, { is_last: 1 }), 'invalid_chunk', true, false],
  [
    'another job id: job_id_mismatch, the upload continues',
    ([first, second]) => [first, { ...second, job_id: 'stranger' }] as object[],
    'job_id_mismatch',
    false,
    true,
  ],
  [
    'base64 with white space: chunk_decode_failed',
    on(0, { data_b64: 'QUJD\n' }),
    'chunk_decode_failed',
    true,
    false,
  ],
  ['base64 of the URL alphabet', on(0, { data_b64: '-_-_' }), 'chunk_decode_failed', true, false],
  [
    'base64 without padding, before the order',
    on(0, { data_b64: 'QQ', chunk_index: 7 }),
    'chunk_decode_failed',
    true,
    false,
  ],
  ['a chunk left out: out_of_order', (frames) => frames.slice(1), 'out_of_order', true, false],
  ['a chunk twice: out_of_order', ([first]) => [first, first] as object[], 'out_of_order', true, false],
  [
    'more bytes than announced: oversized, the session stays',
    (frames) => frames,
    'oversized',
    false,
    false,
    { total_bundle_bytes: 40_000 },
  ],
  [
    'the last chunk too early: chunk_count_mismatch',
    on(1, { is_last: true }),
    'chunk_count_mismatch',
    true,
    false,
  ],
  ['no last chunk: chunk_count_mismatch', on(2, { is_last: false }), 'chunk_count_mismatch', true, false],
  [
    'fewer bytes than announced: undersized, the session stays',
    (frames) => frames,
    'undersized',
    false,
    false,
    { total_bundle_bytes: 80_001 },
  ],
  [
    'another hash: hash_mismatch, the session stays',
    (frames) => frames,
    'hash_mismatch',
    false,
    false,
    { bundle_sha256: 'ab'.repeat(32) },
  ],
];

suite('submit_job_chunk', () => {
  for (const [rule, change, reason, ends, kept, header] of chunks) {
    test(rule, async (t) => {
      const { client, jobs, intakes, log } = await open(t);
      client.send(headerFrame(bundle, header));
      for (const frame of change(chunkFrames(bundle))) client.send(frame);
      await assertRefused(client, reason, ends, kept ? 'stranger' : jobId);
      await settled();
      assert.deepEqual([jobs.records(), intakes.all[0]?.ending], [[], kept ? 'open' : 'aborted']);
      assert.deepEqual(
        log.entries.filter((entry) => entry.startsWith('error')),
        [],
      );
    });
  }

  test('Without a header, and after a dropped upload: no_inflight_submit, however often', async (t) => {
    const { client } = await open(t);
    for (const frame of chunkFrames(bundle)) client.send(frame);
    for (const _ of [1, 2, 3]) await assertRefused(client, 'no_inflight_submit', false);
    client.send(headerFrame(bundle, { total_bundle_bytes: 1 }));
    for (const frame of chunkFrames(bundle)) client.send(frame);
    await assertRefused(client, 'oversized', false);
    await assertRefused(client, 'no_inflight_submit', false);
  });

  test('An upload that runs out of room while it arrives is refused at once, exactly once, and can be sent again', async (t) => {
    const { client, jobs, intakes } = await open(t);
    const [first, ...rest] = chunkFrames(bundle);
    client.send(headerFrame(bundle));
    client.send(first ?? {});
    await until(() => (intakes.all[0]?.bytes.length ?? 0) > 0, 'the first chunk');
    intakes.all[0]?.onRefused({ reason: 'quota_exceeded', detail: 'wait until a build has ended' });
    await assertRefused(client, 'quota_exceeded: wait until a build has ended', false);
    for (const frame of rest) client.send(frame);
    client.send({ type: 'ping', nonce: 2 });
    await client.next('pong');
    assert.equal(client.frames.filter(({ type }) => type === 'submit_job_ack').length, 1);
    await until(() => intakes.all[0]?.ending === 'aborted', 'the end of the intake');
    upload(client, bundle);
    assert.equal((await client.next('submit_job_ack')).accepted, true);
    assert.equal(jobs.records().length, 1);
  });

  test('Empty chunks and unused bits in the last base64 character are allowed', async (t) => {
    const { client, intakes } = await open(t);
    const one = Buffer.from('A');
    client.send(headerFrame(one, { num_chunks: 2, bundle_sha256: headerFrame(one)['bundle_sha256'] }));
    client.send({ ...chunkFrames(one)[0], data_b64: '', is_last: false });
    client.send({ ...chunkFrames(one)[0], data_b64: 'QR==', chunk_index: 1 });
    assert.deepEqual(await client.next('submit_job_ack'), {
      type: 'submit_job_ack',
      job_id: jobId,
      accepted: true,
    });
    assert.deepEqual(Buffer.concat(intakes.all[0]?.bytes ?? []), one);
  });
});

suite('A whole bundle', () => {
  for (const [code, reason] of [
    ['ENOSPC', 'disk_full: the disk of the build server is full; make room there and build again'],
    ['EROFS', 'not_ready: the disk of the build server is read-only; its operator must make it writable'],
    ['EMFILE', 'not_ready: the build server has too many open files; build again when it is less busy'],
    ['EUNKNOWN', 'not_ready: the build server could not store the job'],
  ] as const)
    test(`A job that cannot be recorded (${code}) is refused with the reason, and can be sent again`, async (t) => {
      const { client, jobs } = await open(t);
      jobs.store = (done) => done(Object.assign(new Error('write /some/place'), { code }));
      upload(client, bundle);
      await assertRefused(client, reason, false);
      jobs.store = (done) => done();
      upload(client, bundle);
      assert.equal((await client.next('submit_job_ack')).accepted, true);
    });

  test('It is acknowledged once, before any frame of its job, and its bytes arrive in order', async (t) => {
    const { client, intakes } = await open(t);
    upload(client, bundle, { bundle_sha256: String(headerFrame(bundle)['bundle_sha256']).toUpperCase() });
    const state = await client.next('job_state_changed');
    assert.deepEqual(state, {
      type: 'job_state_changed',
      job_id: jobId,
      status: 'queued',
      error_message: '',
    });
    const types = client.frames.map(({ type }) => type);
    assert.deepEqual(types, ['queue_status', 'submit_job_ack', 'job_state_changed']);
    assert.deepEqual(Buffer.concat(intakes.all[0]?.bytes ?? []), bundle);
    assert.equal(intakes.all[0]?.ending, 'finished');
  });

  test('It is acknowledged when its job is recorded, and an earlier cancel is not lost', async (t) => {
    const { client, jobs } = await open(t);
    let stored = (): void => {};
    jobs.store = (done) => void (stored = () => done());
    upload(client, bundle);
    client.send({ type: 'cancel_job', job_id: jobId });
    client.send({ type: 'ping', nonce: 1 });
    await client.next('pong');
    await until(() => jobs.records().length === 1, 'the job');
    assert.deepEqual(client.all('submit_job_ack'), []);
    stored();
    assert.equal((await client.next('submit_job_ack')).accepted, true);
    await until(() => jobs.records()[0]?.state === 'cancelled', 'the cancellation');
  });

  test('A bundle that cannot be unpacked is acknowledged first and then fails', async (t) => {
    const { client, intakes } = await open(t);
    intakes.fault = 'the archive is damaged';
    upload(client, bundle);
    assert.equal((await client.next('submit_job_ack')).accepted, true);
    const { status, error_message } = await client.next('job_state_changed');
    assert.deepEqual([status, error_message], ['failed', 'the archive is damaged']);
  });

  test('A session that ends before the acknowledgement leaves neither job nor bundle', async (t) => {
    let answer: (isSafe: boolean) => void = () => {};
    const isPlaceSafe = () => new Promise<boolean>((resolve) => (answer = resolve));
    const { jobs, intakes, session } = await linkSetting(t, { isPlaceSafe });
    const client = await session();
    upload(client, bundle);
    await settled();
    client.hangUp();
    await settled();
    answer(true);
    await until(() => intakes.all[0]?.ending === 'aborted', 'the end of the intake');
    assert.deepEqual(jobs.records(), []);
  });

  test('A cancel directly after the last chunk is not lost', async (t) => {
    const { client } = await open(t);
    upload(client, bundle);
    client.send({ type: 'cancel_job', job_id: jobId });
    assert.equal((await client.next('submit_job_ack')).accepted, true);
    const isOver = () => client.all('job_state_changed').at(-1)?.status === 'cancelled';
    await until(isOver, 'the cancellation');
  });

  test('A cancel during the upload has no effect, and the upload continues', async (t) => {
    const { client, jobs } = await open(t);
    const [first, ...rest] = chunkFrames(bundle);
    client.send(headerFrame(bundle));
    client.send(first as object);
    client.send({ type: 'cancel_job', job_id: jobId });
    for (const frame of rest) client.send(frame);
    assert.equal((await client.next('submit_job_ack')).accepted, true);
    await settled();
    assert.deepEqual(
      client.all('job_state_changed').map(({ status }) => status),
      ['queued'],
    );
    assert.equal(jobs.records()[0]?.state, 'queued');
  });

  test('An acknowledged job that cannot be queued is reported as failed', async (t) => {
    const { client, jobs, intakes } = await open(t);
    jobs.submit = () => {
      throw new Error('closing');
    };
    upload(client, bundle);
    assert.equal((await client.next('submit_job_ack')).accepted, true);
    assert.match((await client.next('job_state_changed')).error_message, /^queue_rejected/);
    assert.equal(intakes.all[0]?.ending, 'finished');
  });

  test('While the disk catches up, reading pauses, pings are still sent, and silence does not count as dead', async (t) => {
    const { client, intakes, clock } = await open(t);
    intakes.full = true;
    upload(client, bundle);
    await settled();
    const arrived = intakes.all[0]?.bytes.length ?? 0;
    assert.ok(arrived < 3, 'the rest waits in the connection');
    for (let n = 0; n < 10; n += 1) clock.advance(30_000);
    await until(() => client.all('ping').length === 10, 'ten pings');
    assert.equal(client.isClosed(), false);
    intakes.full = false;
    assert.equal((await client.next('submit_job_ack')).accepted, true);
    assert.deepEqual(Buffer.concat(intakes.all[0]?.bytes ?? []), bundle);
  });

  for (const [how, hangUp] of [
    ['its peer hangs up', ({ client }) => client.hangUp()],
    [
      'its peer sends terminate',
      ({ client }) => client.send({ type: 'terminate', reason: 'client_stopped' }),
    ],
    ['its peer is revoked', ({ pairing }) => void pairing.revoke(offloaderId)],
    ['a newer session takes over', ({ session }) => void session()],
    ['the connection breaks', ({ client }) => client.transport.destroy()],
  ] as readonly [string, (setting: Setting & { client: Client }) => void][]) {
    test(`An incomplete bundle is dropped when ${how}`, async (t) => {
      const setting = await open(t);
      setting.client.send(headerFrame(bundle));
      setting.client.send(chunkFrames(bundle)[0] as object);
      await until(() => setting.intakes.all[0]?.bytes.length === 1, 'the first chunk');
      hangUp(setting);
      await until(() => setting.intakes.all[0]?.ending === 'aborted', 'the end of the intake');
      assert.equal(setting.client.all('submit_job_ack').length, 0);
    });
  }
});

suite('A repeated job id', () => {
  async function reconnected(t: Cleanups, changes: Record<string, unknown> = {}) {
    const setting = await open(t);
    upload(setting.client, bundle);
    await setting.client.next('job_state_changed');
    setting.client.hangUp();
    await until(() => !setting.isConnected(), 'the end of the session');
    const again = await setting.session();
    return { ...setting, again, resubmit: () => upload(again, bundle, changes) };
  }

  for (const [state, shown] of [
    ['queued', { status: 'queued', error_message: '' }],
    ['running', { status: 'running', error_message: '' }],
    ['completed', { status: 'completed', error_message: '' }],
    ['failed', { status: 'failed', error_message: 'no space', failure_reason: 'provision' }],
    ['cancelled', { status: 'cancelled', error_message: '' }],
  ] as const) {
    test(`for the same work finds the ${state} job, and builds nothing`, async (t) => {
      const { again, jobs, intakes, resubmit } = await reconnected(t);
      const isBad = state === 'failed';
      jobs.move({ state, errorMessage: isBad ? 'no space' : '', failureReason: isBad ? 'provision' : null });
      resubmit();
      assert.equal((await again.next('submit_job_ack')).accepted, true);
      const now = again.frames.findLast(({ type }) => type === 'job_state_changed');
      assert.deepEqual(now ?? (await again.next('job_state_changed')), {
        type: 'job_state_changed',
        job_id: jobId,
        ...shown,
      });
      await settled();
      assert.deepEqual([jobs.records().length, intakes.all[1]?.ending], [1, 'aborted']);
      jobs.emit({ type: 'output', job: jobs.records()[0] ?? assert.fail(), line: 'later\n' });
      assert.equal((await again.next('job_output')).line, 'later\n');
    });
  }

  test('for the same work during unpacking is acknowledged, and gets the end of the first job', async (t) => {
    const { again, jobs, intakes, resubmit } = await reconnected(t);
    const [job = assert.fail()] = jobs.records();
    jobs.find = () => ({ ...job, state: 'receiving' });
    resubmit();
    assert.equal((await again.next('submit_job_ack')).accepted, true);
    await settled();
    assert.deepEqual(again.all('job_state_changed'), [], 'there is no word for it');
    assert.deepEqual([jobs.records().length, intakes.all[1]?.ending], [1, 'aborted']);
    jobs.move({ state: 'completed' });
    assert.equal((await again.next('job_state_changed')).status, 'completed');
  });

  test('with another bundle is new work, even if every other field is the same', async (t) => {
    const { again, jobs } = await reconnected(t);
    upload(again, Buffer.alloc(80_000, 'other'));
    assert.equal((await again.next('submit_job_ack')).accepted, true);
    assert.equal((await again.next('job_state_changed')).status, 'queued');
    assert.deepEqual(
      jobs.records().map(({ state }) => state),
      ['cancelled', 'queued'],
    );
    assert.equal(again.all('job_state_changed').length, 1, 'the older one ends without a word');
  });

  test('that cannot be recorded is refused, and the older job goes on', async (t) => {
    const { again, jobs } = await reconnected(t);
    jobs.store = (done) => done(Object.assign(new Error('full'), { code: 'ENOSPC' }));
    upload(again, Buffer.alloc(80_000, 'other'));
    assert.equal((await again.next('submit_job_ack')).accepted, false);
    const [job = assert.fail(), ...others] = jobs.records();
    assert.deepEqual([job.state, others], ['queued', []]);
    jobs.emit({ type: 'output', job, line: 'still building\n' });
    assert.equal((await again.next('job_output')).line, 'still building\n');
  });

  for (const [what, changes] of [
    ['target', { target: 'clean' }],
    ['version', { target_esphome_version: '2026.9.0' }],
    ['bootloader', { skip_bootloader: false }],
  ] as const) {
    test(`with another ${what} is new work: the older job ends without a frame`, async (t) => {
      const { again, jobs, resubmit } = await reconnected(t, changes);
      resubmit();
      assert.equal((await again.next('submit_job_ack')).accepted, true);
      assert.equal((await again.next('job_state_changed')).status, 'queued');
      assert.deepEqual(
        jobs.records().map(({ state }) => state),
        ['cancelled', 'queued'],
      );
      jobs.emit({ type: 'output', job: jobs.records()[1] ?? assert.fail(), line: 'new\n' });
      await again.next('job_output');
      assert.deepEqual(again.all('job_state_changed').length, 1);
    });
  }
});
