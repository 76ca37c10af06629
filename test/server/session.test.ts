/**
 * The effect of each frame on a session, the heartbeat, and arbitrary sequences of frames. Covers
 * src/protocol/heartbeat.ts.
 */
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';

import * as fc from 'fast-check';

import { startHeartbeat } from '../../src/protocol/heartbeat.js';
import { manualClock } from '../async/manual-clock.js';
import { chunkFrames, headerFrame, jobId } from './bundle-frames.js';
import { linkSetting, offloaderId, settled, until, type Client } from './setting.js';

suite('The heartbeat', () => {
  function beating(ping: (nonce: number) => boolean = () => true) {
    const clock = manualClock();
    const log: (number | 'dead')[] = [];
    let isPaused = false;
    const heartbeat = startHeartbeat({
      clock,
      ping: (nonce) => log.push(nonce) > 0 && ping(nonce),
      dead: () => log.push('dead'),
      isPaused: () => isPaused,
    });
    return { clock, log, heartbeat, pause: (now: boolean) => (isPaused = now) };
  }

  test('It pings every 30 s with an increasing nonce', () => {
    const { clock, log, heartbeat } = beating();
    for (let n = 0; n < 5; n += 1) {
      clock.advance(30_000);
      heartbeat.alive();
    }
    assert.deepEqual(log, [1, 2, 3, 4, 5]);
    heartbeat.stop();
    assert.equal(clock.waiting, 0);
  });

  test('After more than 90 s of silence the other side is reported dead, once, and no timer is left', () => {
    const { clock, log } = beating();
    clock.advance(600_000);
    assert.deepEqual([log, clock.waiting], [[1, 2, 3, 'dead'], 0]);
  });

  test('A ping that cannot be sent counts as dead', () => {
    const { clock, log } = beating(() => false);
    clock.advance(30_000);
    assert.deepEqual([log, clock.waiting], [[1, 'dead'], 0]);
  });

  test('Silence while reading is paused does not count', () => {
    const { clock, log, pause } = beating();
    pause(true);
    clock.advance(300_000);
    pause(false);
    clock.advance(90_000);
    assert.equal(log.includes('dead'), false);
    clock.advance(30_000);
    assert.equal(log.at(-1), 'dead');
  });
});

suite('A session', () => {
  const ends: readonly [rule: string, act: (client: Client) => void, reason: string | undefined][] = [
    [
      'bytes that cannot be decrypted: malformed_frame',
      ({ transport }) => transport.send(Buffer.alloc(40)),
      'malformed_frame',
    ],
    ['a text message: malformed_frame', ({ transport }) => transport.sendText(), 'malformed_frame'],
    [
      'a message over 60 KiB: malformed_frame',
      ({ transport }) => transport.send(Buffer.alloc(61_441)),
      'malformed_frame',
    ],
    ['a list instead of an object: malformed_frame', ({ send }) => send([]), 'malformed_frame'],
    [
      'terminate, without an answer',
      ({ send }) => send({ type: 'terminate', reason: 'client_stopped' }),
      undefined,
    ],
    ['terminate without a reason', ({ send }) => send({ type: 'terminate' }), undefined],
    [
      'a malformed reset: malformed_frame',
      ({ send }) => send({ type: 'reset_build_env' }),
      'malformed_frame',
    ],
  ];
  for (const [rule, act, reason] of ends) {
    test(`Ends on ${rule}`, async (t) => {
      const setting = await linkSetting(t);
      const client = await setting.session();
      act(client);
      await until(() => client.isClosed(), 'the end of the session');
      assert.deepEqual(
        client.all('terminate').map((frame) => frame.reason),
        reason ? [reason] : [],
      );
      await until(() => !setting.isConnected(), 'the end of the session here');
      await until(() => setting.clock.waiting === 0, 'the end of its timers');
    });
  }

  const ignored: readonly [rule: string, frame: object][] = [
    ['an unknown type', { type: 'dance', steps: [1, 2] }],
    ['no type', { job_id: jobId }],
    ['a type that is not a string', { type: 7 }],
    ['a frame of the other direction', { type: 'queue_status', idle: true, running: false, queue_depth: 0 }],
    ['a malformed cancel_job', { type: 'cancel_job', job_id: 7 }],
    ['a cancel_job for an unknown job', { type: 'cancel_job', job_id: 'nobody' }],
    ['an unsolicited pong', { type: 'pong', nonce: 99 }],
    ['names that JavaScript has on every object', { type: '__proto__' }],
  ];
  for (const [rule, frame] of ignored) {
    test(`Ignores ${rule}`, async (t) => {
      const setting = await linkSetting(t);
      const client = await setting.session();
      client.send(frame);
      client.send({ type: 'ping', nonce: 1 });
      await client.next('pong');
      assert.deepEqual(
        client.frames.map(({ type }) => type),
        ['queue_status', 'pong'],
      );
    });
  }

  test('Echoes any nonce', async (t) => {
    const client = await (await linkSetting(t)).session();
    for (const nonce of [0, -1, 1.5, 'text', null, { a: [1] }]) {
      client.send({ type: 'ping', nonce });
      assert.deepEqual((await client.next('pong')).nonce, nonce);
    }
  });

  test('Refuses a reset of the build environment if none is offered', async (t) => {
    const client = await (await linkSetting(t)).session();
    client.send({ type: 'reset_build_env', job_id: jobId });
    assert.deepEqual(await client.next('reset_build_env_ack'), {
      type: 'reset_build_env_ack',
      job_id: jobId,
      accepted: false,
      reason: 'not_ready',
    });
  });

  suite('A reset of the build environment', () => {
    const bundle = Buffer.from('bundle');
    const reset = { type: 'reset_build_env', job_id: jobId };
    const ack = { type: 'reset_build_env_ack', job_id: jobId };

    test('is offered, acknowledged and reported like a job; a second one at the same time is refused', async (t) => {
      let finish = (): void => {};
      const asked: string[] = [];
      const setting = await linkSetting(t, {
        resetBuilds(id) {
          asked.push(id);
          return new Promise<void>((resolve) => (finish = resolve));
        },
      });
      const client = await setting.session();
      assert.equal(client.answer.reset_build_env_supported, true);
      client.send(reset);
      assert.deepEqual(await client.next('reset_build_env_ack'), { ...ack, accepted: true });
      assert.equal((await client.next('job_state_changed')).status, 'running');
      client.send({ ...reset, job_id: 'second' });
      assert.equal((await client.next('reset_build_env_ack')).reason, 'busy');
      finish();
      const { job_id: id, status } = await client.next('job_state_changed');
      assert.deepEqual([id, status, asked], [jobId, 'completed', [offloaderId]]);
    });

    test('that is malformed is refused as such, without an id, and ends the session', async (t) => {
      for (const id of [undefined, 7, null]) {
        const client = await (await linkSetting(t)).session();
        client.send({ ...reset, job_id: id });
        assert.equal((await client.next('terminate')).reason, 'malformed_frame');
        assert.deepEqual(client.frames.slice(-2), [
          { ...ack, job_id: '', accepted: false, reason: 'invalid_frame' },
          { type: 'terminate', reason: 'malformed_frame' },
        ]);
      }
    });

    test('is refused during a download', async (t) => {
      const setting = await linkSetting(t, { resetBuilds: () => Promise.resolve() });
      const client = await setting.session();
      for (const frame of [headerFrame(bundle), ...chunkFrames(bundle)]) client.send(frame);
      await client.next('job_state_changed');
      setting.jobs.move({ state: 'completed' });
      let open = (): void => {};
      const opened = new Promise<void>((resolve) => (open = resolve));
      const { open: really } = setting.jobs;
      setting.jobs.open = (id) => opened.then(() => really(id));
      client.send({ type: 'download_artifacts', job_id: jobId });
      client.send(reset);
      assert.equal((await client.next('reset_build_env_ack')).reason, 'busy');
      open();
      await client.next('artifacts_end');
      await settled();
      client.send(reset);
      assert.equal((await client.next('reset_build_env_ack')).accepted, true);
    });

    test('is refused during an upload, or while affected jobs run', async (t) => {
      let isFree = false;
      const setting = await linkSetting(t, { resetBuilds: () => (isFree ? Promise.resolve() : null) });
      const client = await setting.session();
      client.send(reset);
      assert.deepEqual(await client.next('reset_build_env_ack'), { ...ack, accepted: false, reason: 'busy' });
      isFree = true;
      client.send(headerFrame(bundle));
      client.send(reset);
      assert.equal((await client.next('reset_build_env_ack')).reason, 'busy');
    });

    test('that fails is reported in a message without host paths', async (t) => {
      const setting = await linkSetting(t, {
        resetBuilds: () => Promise.reject(new Error('EACCES: /srv/secret')),
      });
      const client = await setting.session();
      client.send(reset);
      await client.next('job_state_changed');
      const { status, error_message: message } = await client.next('job_state_changed');
      assert.equal(status, 'failed');
      assert.doesNotMatch(message, /srv/);
    });
  });

  test('Cancels a job of its peer; the new state is the answer, and later output is not sent', async (t) => {
    const setting = await linkSetting(t);
    const client = await setting.session();
    const bundle = Buffer.from('bundle');
    for (const frame of [headerFrame(bundle), ...chunkFrames(bundle)]) client.send(frame);
    await client.next('job_state_changed');
    client.send({ type: 'cancel_job', job_id: jobId });
    assert.deepEqual(await client.next('job_state_changed'), {
      type: 'job_state_changed',
      job_id: jobId,
      status: 'cancelled',
      error_message: 'it was cancelled',
    });
    client.send({ type: 'cancel_job', job_id: jobId });
    await settled();
    assert.equal(client.all('job_state_changed').length, 2);
  });

  test('Ends with heartbeat_timeout when its peer goes silent; any frame keeps it open', async (t) => {
    const setting = await linkSetting(t);
    const client = await setting.session();
    for (let n = 0; n < 6; n += 1) {
      client.send({ type: 'anything' });
      await settled();
      setting.clock.advance(60_000);
      await settled();
    }
    assert.equal(client.isClosed(), false);
    setting.clock.advance(60_000);
    assert.equal((await client.next('terminate')).reason, 'heartbeat_timeout');
    assert.equal(client.frames.at(-1)?.type, 'terminate');
  });

  test('Is cut when its peer keeps sending requests and never reads the answers', async (t) => {
    const setting = await linkSetting(t);
    const client = await setting.session();
    client.freeze();
    for (let n = 0; n < 30; n += 1) client.send({ type: 'ping', nonce: 'x'.repeat(50_000) });
    await until(() => !setting.isConnected(), 'the end of the session');
  });

  test('An internal error while handling a frame closes the session without a terminate', async (t) => {
    const setting = await linkSetting(t);
    const client = await setting.session();
    setting.jobs.find = () => {
      throw new Error('a fault');
    };
    client.send({ type: 'download_artifacts', job_id: jobId });
    await until(() => client.isClosed(), 'the end of the session');
    assert.deepEqual(client.all('terminate'), []);
  });
});

test('No sequence of frames, valid or not, throws, leaks an intake, or gets two acks for one bundle', async () => {
  const bundle = Buffer.alloc(70_000, 'b');
  const whole = [headerFrame(bundle), ...chunkFrames(bundle)];
  const others = [
    { type: 'ping', nonce: 1 },
    { type: 'cancel_job', job_id: jobId },
    { type: 'download_artifacts', job_id: jobId },
    { type: 'reset_build_env', job_id: jobId },
    { type: 'terminate', reason: 'client_stopped' },
    headerFrame(bundle, { job_id: 'other' }),
    ...chunkFrames(bundle, { job_id: 'other' }),
  ];
  const value = fc.oneof(
    fc.constantFrom<unknown>(null, true, -1, 1.5, '', 'x', [], {}),
    fc.string(),
    fc.integer(),
  );
  const field = fc.constantFrom(
    'job_id',
    'type',
    'chunk_index',
    'data_b64',
    'is_last',
    'num_chunks',
    'target',
  );
  const mutated = fc
    .tuple(fc.constantFrom<object>(...whole, ...others), field, value)
    .map(([frame, name, odd]) => ({ ...frame, [name]: odd }));
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.constant(whole as object[]) },
    { weight: 3, arbitrary: fc.constantFrom<object[]>(...[...whole, ...others].map((frame) => [frame])) },
    { weight: 1, arbitrary: mutated.map((frame) => [frame]) },
    { weight: 1, arbitrary: fc.constantFrom<object[]>([{ kind: 'garbage' }], [{ kind: 'reconnect' }]) },
  );
  const cleanups: (() => Promise<void> | void)[] = [];
  const setting = await linkSetting({ after: (cleanup) => cleanups.push(cleanup) });
  const { intakes, jobs, log, isConnected } = setting;

  async function play(steps: readonly object[][]): Promise<void> {
    const [before, known] = [intakes.all.length, jobs.records().length];
    // A session is replaced once a minute at most.
    const open = (): Promise<Client> => {
      setting.clock.advance(60_000);
      return setting.session();
    };
    let client = await open();
    const clients = [client];
    for (const frame of steps.flat()) {
      if ('kind' in frame && frame.kind === 'garbage') client.transport.send(Buffer.alloc(30));
      else if ('kind' in frame) clients.push((client = await open()));
      else client.send(frame);
    }
    await settled();
    client.hangUp();
    await until(() => !isConnected(), 'the end of the session');
    await settled();
    const mine = intakes.all.slice(before);
    assert.deepEqual(
      mine.filter(({ ending }) => ending === 'open'),
      [],
    );
    const acks = clients.flatMap((each) => each.all('submit_job_ack'));
    const accepted = acks.filter((ack) => ack.accepted).length;
    assert.ok(accepted <= mine.length);
    assert.ok(jobs.records().length - known <= accepted);
    for (const { frames } of clients) {
      const last = frames.findIndex(({ type }) => type === 'terminate');
      assert.ok(last < 0 || last === frames.length - 1, 'nothing follows a terminate');
    }
    assert.deepEqual(
      log.entries.filter((entry) => entry.startsWith('error')),
      [],
    );
  }

  try {
    await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 8 }), play), { numRuns: 80 });
    await setting.link.close();
    assert.equal(setting.clock.waiting, 0);
  } finally {
    for (const cleanup of cleanups.toReversed()) await cleanup();
  }
});
