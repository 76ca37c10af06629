/** Whatever fails during an upload, its peer gets its place back. Covers src/server/upload.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as fc from 'fast-check';

import { systemClock } from '../../src/async/clock.js';
import type { BundleIntake } from '../../src/bundles/intake.js';
import type { StagedBundle } from '../../src/bundles/store.js';
import type { ReceiverChannel } from '../../src/protocol/channel.js';
import { createUploads } from '../../src/server/connection-limits.js';
import { createUploadHandler } from '../../src/server/upload.js';
import { recordingLog } from '../support/recording-log.js';
import { chunkFrames, headerFrame, upload } from './bundle-frames.js';
import { fakeIntakes } from './fake-intakes.js';
import { fakeJobs } from './fake-jobs.js';
import { linkSetting, offloaderId } from './setting.js';

const bundle = Buffer.alloc(40_000, 'b');

/** What can fail, each with the n-th call of all. */
const faults = ['none', 'throws', 'rejects'] as const;
type Fault = (typeof faults)[number];

/** Takes the next fault: throws it, rejects with it, or resolves. */
function faulty(next: () => Fault): <T>(value: T) => Promise<T> {
  return (value) => {
    const fault = next();
    if (fault === 'throws') throw new Error('a fault');
    return fault === 'rejects' ? Promise.reject(new Error('a fault')) : Promise.resolve(value);
  };
}

function play(steps: readonly string[], plan: readonly Fault[]) {
  const log = recordingLog();
  let calls = 0;
  const act = faulty(() => plan[calls++ % plan.length] ?? 'none');
  const uploads = createUploads(8);
  let [begun, ended] = [0, 0];
  const counted: typeof uploads = {
    ...uploads,
    begin(peer) {
      const release = uploads.begin(peer);
      if (release === undefined) return undefined;
      begun += 1;
      return () => {
        ended += 1;
        release();
      };
    },
  };
  const mayThrow = (): void => {
    if (plan[calls++ % plan.length] === 'throws') throw new Error('a fault');
  };
  const intake: BundleIntake = {
    write() {
      mayThrow();
      return true;
    },
    drain: () => Promise.resolve(),
    finish: () => act({ discard: () => Promise.resolve() } as StagedBundle),
    abort: () => act(undefined),
  };
  const jobs = fakeJobs();
  const { submit, find } = jobs;
  const channel = { send: () => true, pause() {}, resume() {} } as unknown as ReceiverChannel;
  const handler = createUploadHandler({
    ...{
      dashboardId: offloaderId,
      peerLabel: 'Home',
      lane: 1,
      channel,
      uploads: counted,
      log,
      clock: systemClock,
    },
    jobs: {
      ...jobs,
      submit(...args) {
        mayThrow();
        return submit(...args);
      },
      find(...args) {
        mayThrow();
        return find(...args);
      },
    },
    openIntake() {
      mayThrow();
      return intake;
    },
    bundleLimits: { packedBytes: 1_000_000 },
    isPlaceSafe: () => act(true),
    mute() {},
    endMalformed() {},
    outbox: { state() {}, output() {}, queueStatus() {}, end() {} },
  });
  const [first, second] = chunkFrames(bundle);
  const run: Record<string, () => void> = {
    header: () => handler.header(headerFrame(bundle) as never),
    first: () => handler.chunk(first as never),
    second: () => handler.chunk(second as never),
    wrong: () => handler.chunk({ ...first, data_b64: '!' } as never),
    cancel: () => handler.cancel('4be1c09a77d2'),
  };
  for (const step of steps) {
    try {
      run[step]?.();
    } catch {
      // The session ends then.
      break;
    }
  }
  return { end: () => handler.end(), counts: () => ({ begun, ended }) };
}

test('Every upload that begins ends exactly once, whatever throws or rejects on the way', async () => {
  const step = fc.constantFrom('header', 'first', 'second', 'wrong', 'cancel', 'whole');
  const steps = fc
    .array(step, { maxLength: 12 })
    .map((names) => names.flatMap((name) => (name === 'whole' ? ['header', 'first', 'second'] : [name])));
  const plan = fc.array(fc.constantFrom(...faults, 'none' as const), { minLength: 1, maxLength: 12 });
  let all = 0;
  await fc.assert(
    fc.asyncProperty(steps, plan, async (names, failing) => {
      const played = play(names, failing);
      await played.end();
      const { begun, ended } = played.counts();
      assert.equal(ended, begun);
      all += begun;
    }),
    { numRuns: 500 },
  );
  assert.ok(all > 500, `${all} uploads`);
});

test('While bundles cannot be unpacked, each is refused with a message, and afterwards the peer uploads as before', async (t) => {
  const intakes = fakeIntakes();
  let isBroken = true;
  const setting = await linkSetting(t, {
    openIntake(request, onRefused) {
      if (isBroken) throw new Error('ERR_WORKER_INIT_FAILED');
      return intakes.open(request, onRefused);
    },
  });
  const client = await setting.session();
  for (let n = 0; n < 20; n += 1) {
    client.send(headerFrame(bundle));
    const { accepted, reason } = await client.next('submit_job_ack');
    assert.deepEqual(
      [accepted, reason],
      [false, 'not_ready: the build server cannot unpack bundles now; its log says why'],
    );
  }
  isBroken = false;
  upload(client, bundle);
  assert.equal((await client.next('submit_job_ack')).accepted, true);
  assert.equal(client.isClosed(), false);
});
