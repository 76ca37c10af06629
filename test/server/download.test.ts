/** Downloads and job output, over fast and slow links. */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';

import * as fc from 'fast-check';

import type { JobRecord } from '../../src/jobs/record.js';
import type { ReceiverChannel } from '../../src/protocol/channel.js';
import { createOutbox, outputPieces } from '../../src/server/outbox.js';
import type { Cleanups } from '../support/temp-dir.js';
import { jobId, upload } from './bundle-frames.js';
import { unopenable } from './fake-jobs.js';
import { linkSetting, settled, until, type Client, type Setting } from './setting.js';

const request = { type: 'download_artifacts', job_id: jobId };

/** A session whose only job is in this state. */
async function withJob(
  t: Cleanups,
  state: JobRecord['state'] = 'completed',
): Promise<Setting & { client: Client }> {
  const setting = await linkSetting(t);
  const client = await setting.session();
  upload(client, Buffer.from('bundle'));
  await client.next('job_state_changed');
  setting.jobs.move({ state });
  setting.jobs.artifacts = Buffer.from(Array.from({ length: 200_000 }, (_, n) => n % 251));
  return { ...setting, client };
}

suite('download_artifacts', () => {
  for (const [rule, job_id] of [
    ['a missing id', undefined],
    ['a number for an id', 7],
  ] as const) {
    test(`${rule}: the session ends with malformed_frame, and no artifacts_end`, async (t) => {
      const { client } = await withJob(t);
      client.send({ ...request, job_id });
      assert.equal((await client.next('terminate')).reason, 'malformed_frame');
      assert.equal(client.all('artifacts_end').length, 0);
    });
  }

  const refusals: readonly [rule: string, prepare: (setting: Setting) => void, sent: object, end: object][] =
    [
      [
        'an unknown job: unknown_job',
        () => {},
        { job_id: 'nobody' },
        { reason: 'unknown_job', job_id: 'nobody' },
      ],
      [
        'its files have expired: unknown_job',
        ({ jobs }) => (jobs.open = unopenable('NOT_FOUND', 'the files have expired')),
        {},
        { reason: 'unknown_job', detail: 'the files have expired' },
      ],
      [
        'a file is missing: build_dir_missing, with the detail',
        ({ jobs }) => (jobs.open = unopenable('ARTIFACTS', 'idedata is missing for porch-light')),
        {},
        { reason: 'build_dir_missing', detail: 'idedata is missing for porch-light' },
      ],
      [
        'a detail of more than 256 characters is truncated',
        ({ jobs }) => (jobs.open = unopenable('STORAGE', 'x'.repeat(300))),
        {},
        { reason: 'build_dir_missing', detail: 'x'.repeat(256) },
      ],
      [
        'any other error: pack_failed, without its message',
        ({ jobs }) => (jobs.open = () => Promise.reject(new Error('EACCES /home/user/builds'))),
        {},
        { reason: 'pack_failed' },
      ],
    ];
  for (const [rule, prepare, sent, end] of refusals) {
    test(`${rule}; the session stays, and a second request succeeds`, async (t) => {
      const setting = await withJob(t);
      const { open } = setting.jobs;
      prepare(setting);
      setting.client.send({ ...request, ...sent });
      const expected = { type: 'artifacts_end', job_id: jobId, accepted: false, ...end };
      assert.deepEqual(await setting.client.next('artifacts_end'), expected);
      assert.equal(setting.client.all('artifacts_start').length, 0);
      setting.jobs.open = open;
      setting.client.send(request);
      assert.equal((await setting.client.next('artifacts_end')).accepted, true);
    });
  }

  for (const state of ['queued', 'running', 'failed', 'cancelled'] as const) {
    test(`a job that is ${state}: job_not_completed`, async (t) => {
      const { client } = await withJob(t, state);
      client.send(request);
      assert.equal((await client.next('artifacts_end')).reason, 'job_not_completed');
    });
  }

  test('The result arrives complete, in chunks of 32 KiB, announced by count and hash', async (t) => {
    const { client, jobs } = await withJob(t);
    client.send(request);
    assert.deepEqual(await client.next('artifacts_start'), {
      type: 'artifacts_start',
      job_id: jobId,
      total_bytes: 200_000,
      num_chunks: 7,
      artifacts_sha256: 'ab'.repeat(32),
      firmware_offset: '0x10000',
    });
    assert.deepEqual(await client.next('artifacts_end'), {
      type: 'artifacts_end',
      job_id: jobId,
      accepted: true,
    });
    const chunks = client.all('artifacts_chunk');
    const pieces = chunks.map(({ data_b64 }) => Buffer.from(data_b64, 'base64'));
    assert.deepEqual(Buffer.concat(pieces), jobs.artifacts);
    assert.deepEqual(
      chunks.map(({ chunk_index, is_last }, n) => [chunk_index, is_last, pieces[n]?.length]),
      [0, 1, 2, 3, 4, 5, 6].map((n) => [n, n === 6, n === 6 ? 200_000 - 6 * 32_768 : 32_768]),
    );
  });

  for (const [rule, difference] of [
    ['fewer', 40_000],
    ['more', -40_000],
  ] as const) {
    test(`${rule} stored bytes than announced: stream_failed`, async (t) => {
      const { client, jobs } = await withJob(t);
      const { open } = jobs;
      jobs.open = async (id) => {
        const artifacts = await open(id);
        return { ...artifacts, bytes: artifacts.bytes + difference };
      };
      client.send(request);
      assert.equal((await client.next('artifacts_end')).reason, 'stream_failed');
    });
  }

  test('A second request during a download: duplicate_download; pings are answered, and a slow reader slows the file', async (t) => {
    const { client, jobs } = await withJob(t);
    jobs.artifacts = Buffer.alloc(2_000_000);
    client.send(request);
    client.send(request);
    client.send({ type: 'ping', nonce: 5 });
    client.freeze();
    await settled();
    client.transport.resume();
    assert.equal((await client.next('artifacts_end')).reason, 'duplicate_download');
    await client.next('pong');
    assert.equal((await client.next('artifacts_end')).accepted, true);
    const types = client.frames.map(({ type }) => type);
    const before = types.slice(0, types.indexOf('pong')).filter((type) => type === 'artifacts_chunk').length;
    assert.ok(before <= 4, `the pong stood behind ${before} chunks`);
  });

  test('The end of the session stops the stream and closes its file', async (t) => {
    const { client, jobs, isConnected } = await withJob(t);
    let closed = false;
    jobs.open = () =>
      Promise.resolve({
        bytes: 10_000_000,
        sha256: '',
        firmwareOffset: '0x0',
        async *read() {
          try {
            for (;;) {
              yield Buffer.alloc(32_768);
              await Promise.resolve();
            }
          } finally {
            closed = true;
          }
        },
      });
    client.send(request);
    await client.next('artifacts_start');
    client.freeze();
    await settled();
    assert.equal(closed, false);
    client.transport.destroy();
    await until(() => !isConnected(), 'the end of the session');
    assert.equal(closed, true);
  });
});

suite('Job output', () => {
  /** A channel whose socket accepts nothing until the test allows it. */
  function slowChannel() {
    const sent: { type: string; line?: string; status?: string; idle?: boolean; job_id?: string }[] = [];
    const waiting: (() => void)[] = [];
    const channel = {
      signal: new AbortController().signal,
      bufferedBytes: 100_000,
      send: (frame: (typeof sent)[number]) => sent.push(frame) > 0,
      drained: () => new Promise<void>((resolve) => waiting.push(resolve)),
    };
    const drain = async (): Promise<void> => {
      channel.bufferedBytes = 0;
      for (const resolve of waiting.splice(0)) resolve();
      await settled();
    };
    return { channel, sent, drain, outbox: createOutbox(channel as unknown as ReceiverChannel) };
  }
  const state = (status: 'running' | 'completed') =>
    ({ type: 'job_state_changed', job_id: 'a', status, error_message: '' }) as const;

  test('On a slow link, lines are dropped, the notice counts them, and no state is lost or reordered', async () => {
    const { outbox, sent, drain } = slowChannel();
    outbox.state(state('running'));
    for (let n = 0; n < 3_000; n += 1) outbox.output('a', 'x'.repeat(999) + '\n');
    outbox.state(state('completed'));
    assert.equal(sent.length, 0);
    await drain();
    const lines = sent.filter(({ type }) => type === 'job_output');
    const notice = lines.at(-1)?.line ?? '';
    const missing = Number(/^\[(\d+) lines are missing/.exec(notice)?.[1]);
    assert.equal(lines.length - 1 + missing, 3_000);
    assert.ok(lines.length < 1_100, 'the backlog is bounded');
    assert.deepEqual(
      [sent[0]?.status, sent.at(-2)?.line, sent.at(-1)?.status],
      ['running', notice, 'completed'],
    );
  });

  test('Each gap has one notice, at the position of the missing lines', async () => {
    const { channel, outbox, sent, drain } = slowChannel();
    for (let round = 0; round < 2; round += 1) {
      channel.bufferedBytes = 100_000;
      for (let n = 0; n < 2_000; n += 1) outbox.output('a', 'x'.repeat(999));
      await drain();
      outbox.output('a', 'after\n');
    }
    const short = sent.map(({ line }) => line ?? '').filter((line) => line.length < 999);
    assert.equal(short.length, 4);
    for (const n of [0, 2]) assert.match(short[n] ?? '', /lines are missing/);
    for (const n of [1, 3]) assert.equal(short[n], 'after\n');
  });

  test('Of several queued queue states, only the latest is sent', async () => {
    const { outbox, sent, drain } = slowChannel();
    for (const depth of [1, 2, 3]) {
      outbox.queueStatus({ type: 'queue_status', idle: depth === 3, running: false, queue_depth: depth });
    }
    await drain();
    assert.deepEqual(sent, [{ type: 'queue_status', idle: true, running: false, queue_depth: 3 }]);
  });

  test('Queued frames are dropped when the session ends', async () => {
    const { outbox, sent, drain } = slowChannel();
    outbox.state(state('running'));
    outbox.end();
    await drain();
    assert.deepEqual(sent, []);
  });

  test('Any line is split into frames under 48 kB, never inside a code point, and joins to the same line', () => {
    const unit = fc.constantFrom(
      'a',
      '"',
      '\\',
      '\n',
      '\u0001',
      '\u001b',
      'é',
      '厨',
      '🔥',
      '\u2028',
      '\u007f',
    );
    const line = fc
      .tuple(fc.array(unit, { minLength: 1, maxLength: 40 }), fc.integer({ min: 1, max: 4_000 }))
      .map(([units, times]) => units.join('').repeat(times).slice(0, 200_000));
    fc.assert(
      fc.property(line, (text) => {
        const whole = Buffer.from(text).toString();
        const pieces = outputPieces(whole);
        assert.equal(pieces.join(''), whole);
        for (const piece of pieces) {
          assert.doesNotMatch(piece, /\p{Surrogate}/u);
          const frame = { type: 'job_output', job_id: '4be1c09a77d2', stream: 'stdout', line: piece };
          assert.ok(Buffer.byteLength(JSON.stringify(frame)) < 48_000);
        }
      }),
      { numRuns: 60 },
    );
    assert.deepEqual(outputPieces(''), ['']);
  });
});
