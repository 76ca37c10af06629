/** Covers src/client/builds.ts and src/client/downloads.ts. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { getEventListeners } from 'node:events';
import { open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import * as fc from 'fast-check';

import type { AnnouncedBundle } from '../../src/client/builds.js';
import { isReceiverError, type ErrorCode } from '../../src/errors.js';
import type { ToOffloader } from '../../src/protocol/frames.js';
import { createAssembler, inChunks } from '../../src/protocol/transfer.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { playSession, type PlayedSession } from './played-receiver.js';

const jobId = '4be1c09a77d2';
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

const failsWith =
  (code: ErrorCode, facts: Record<string, unknown> = {}) =>
  (error: unknown): boolean => {
    assert.ok(isReceiverError(error, code), `${code}: ${String(error)}`);
    for (const [name, value] of Object.entries(facts)) assert.equal(error.facts[name], value);
    return true;
  };

function state(status: string, more: object = {}): ToOffloader {
  return { type: 'job_state_changed', job_id: jobId, status, error_message: '', ...more } as ToOffloader;
}

function ack(accepted: boolean, reason?: string): ToOffloader {
  return { type: 'submit_job_ack', job_id: jobId, accepted, ...(reason && { reason }) };
}

/** The bundle as a receiver assembles it, checked by its rules. */
async function receivedBundle({ frame, frames }: PlayedSession): Promise<Buffer> {
  const { total_bundle_bytes: totalBytes, num_chunks: numChunks, bundle_sha256 } = await frame('submit_job');
  await frame('submit_job_chunk', numChunks - 1);
  const assembler = createAssembler({ totalBytes, numChunks, sha256: bundle_sha256 });
  const pieces: Buffer[] = [];
  for (const chunk of frames) {
    if (chunk.type !== 'submit_job_chunk') continue;
    const { chunk_index: index, data_b64: dataBase64, is_last: isLast } = chunk;
    const result = assembler.push({ index, dataBase64, isLast });
    assert.ok(result.ok, JSON.stringify(result));
    pieces.push(result.bytes);
  }
  return Buffer.concat(pieces);
}

test('A build sends its bundle in chunks and ends with the status of the receiver', async () => {
  const played = await playSession();
  const { session, channel, frame } = played;
  const bundle = randomBytes(32_768 * 2 + 5);
  const seen: string[] = [];
  const building = session.build({
    file: 'porch-light.yaml',
    bundle,
    jobId,
    targetVersion: '2026.10.0',
    skipBootloader: true,
    deviceName: 'porch-light',
    deviceFriendlyName: 'Porch light',
    onAccepted: () => seen.push('accepted'),
    onState: (status) => seen.push(status),
    onOutput: (line, stream) => seen.push(`${stream} ${line}`),
  });
  assert.deepEqual(await receivedBundle(played), bundle);
  assert.deepEqual(await frame('submit_job'), {
    type: 'submit_job',
    job_id: jobId,
    configuration_filename: 'porch-light.yaml',
    target: 'compile',
    total_bundle_bytes: bundle.length,
    num_chunks: 3,
    bundle_sha256: sha256(bundle),
    device_name: 'porch-light',
    device_friendly_name: 'Porch light',
    target_esphome_version: '2026.10.0',
    skip_bootloader: true,
  });
  channel.send(ack(true));
  channel.send(state('queued'));
  channel.send({ ...state('queued'), job_id: 'another' } as ToOffloader);
  channel.send({ type: 'job_output', job_id: jobId, stream: 'stderr', line: 'Compiling\n' });
  channel.send(state('failed', { error_message: 'pip could not install', failure_reason: 'provision' }));
  channel.send(state('completed'));
  assert.deepEqual(await building, {
    jobId,
    status: 'failed',
    errorMessage: 'pip could not install',
    failureReason: 'provision',
  });
  assert.deepEqual(seen, ['accepted', 'queued', 'stderr Compiling\n', 'failed']);
  await session.close();
  assert.equal(await session.ended, 'closed');
  assert.deepEqual(played.frames.at(-1), { type: 'terminate', reason: 'client_stopped' });
});

test('A bundle in any pieces becomes the same chunks, and the receiver gets the same bytes', async () => {
  const pieces = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(pieces, fc.integer({ min: 1, max: 50 }), async (parts, size) => {
      const chunks: Buffer[] = [];
      for await (const chunk of inChunks(
        parts.map((part) => Buffer.from(part)),
        size,
      ))
        chunks.push(chunk);
      assert.deepEqual(Buffer.concat(chunks), Buffer.concat(parts));
      assert.ok(chunks.slice(0, -1).every((chunk) => chunk.length === size));
      assert.ok(chunks.every((chunk) => chunk.length > 0 && chunk.length <= size));
    }),
    { numRuns: 200 },
  );
});

test('A refused job throws the reason, and a refusal during the upload stops it', async () => {
  const played = await playSession();
  const { session, channel, frame, count } = played;
  channel.pause();
  const refusedEarly = assert.rejects(
    session.build({ file: 'a.yaml', bundle: Buffer.alloc(3_000_000), jobId }),
    failsWith('REJECTED', { reason: 'duplicate_submit' }),
  );
  channel.send(ack(false, 'duplicate_submit'));
  await refusedEarly;
  channel.resume();
  const second = session.build({ file: 'b.yaml', bundle: Buffer.alloc(10), jobId });
  await frame('submit_job', 1);
  const sent = count('submit_job_chunk');
  assert.ok(sent < 20, `${sent} chunks of the refused bundle`);
  channel.send(ack(false, 'hash_mismatch'));
  await assert.rejects(second, failsWith('REJECTED', { reason: 'hash_mismatch' }));
});

test('Uploads run one after the other, and the jobs then run in parallel', async () => {
  const { session, channel, frame, frames } = await playSession();
  const ids = ['one', 'two', 'three'];
  const building = ids.map((id) =>
    session.build({ file: `${id}.yaml`, bundle: Buffer.alloc(70_000), jobId: id }),
  );
  await frame('submit_job_chunk', 8);
  const order = frames.flatMap((sent) => (sent.type === 'submit_job_chunk' ? [sent.job_id] : []));
  assert.deepEqual(
    order,
    ids.flatMap((id) => [id, id, id]),
  );
  for (const id of ids.toReversed()) {
    channel.send({ type: 'submit_job_ack', job_id: id, accepted: true });
    channel.send({ type: 'job_state_changed', job_id: id, status: 'completed', error_message: '' });
  }
  const results = await Promise.all(building);
  assert.deepEqual(
    results.map((result) => result.jobId),
    ids,
  );
  await assert.rejects(
    Promise.all([1, 2].map(() => session.build({ file: 'a.yaml', bundle: Buffer.alloc(1), jobId }))),
    failsWith('STATE'),
    'one id cannot be under way twice',
  );
});

test('A job without an acknowledgement within 60 s of its last byte fails, and the session stays open', async () => {
  const { session, clock, frame, hasEnded } = await playSession();
  const building = session.build({ file: 'a.yaml', bundle: Buffer.alloc(10), jobId });
  await frame('submit_job_chunk');
  await waitFor(() => clock.waiting === 2, { what: 'the wait for the ack beside the heartbeat' });
  clock.advance(60_000);
  await assert.rejects(building, failsWith('PROTOCOL'));
  assert.equal(clock.waiting, 1);
  assert.equal(hasEnded(), false);
});

test('A build that is aborted while waiting is never sent; a later abort cancels it at the receiver once it is known there', async () => {
  const { session, channel, frame, count } = await playSession();
  const abort = new AbortController();
  const { signal } = abort;
  let release = (): void => {};
  const gate = new Promise<void>((resolve) => (release = resolve));
  const half = Buffer.alloc(40_000);
  async function* slowly(): AsyncGenerator<Buffer> {
    yield half;
    await gate;
    yield half;
  }
  const bundle = { bytes: slowly(), size: 80_000, sha256: sha256(Buffer.concat([half, half])) };
  const first = session.build({ file: 'a.yaml', bundle, jobId, signal });
  const second = session.build({ file: 'b.yaml', bundle: Buffer.alloc(10), signal });
  const secondCancelled = assert.rejects(second, failsWith('CANCELLED'));
  await frame('submit_job_chunk');
  abort.abort();
  await secondCancelled;
  await assert.rejects(session.build({ file: 'c.yaml', bundle: half, signal }), failsWith('CANCELLED'));
  release();
  await frame('submit_job_chunk', 2);
  assert.equal(count('cancel_job'), 0, 'a job that is still being received would not be found');
  channel.send(ack(true));
  assert.deepEqual(await frame('cancel_job'), { type: 'cancel_job', job_id: jobId });
  channel.send(state('cancelled', { error_message: 'it was cancelled' }));
  assert.equal((await first).status, 'cancelled');
  session.cancel('unknown');
  assert.equal((await frame('cancel_job', 1)).job_id, 'unknown');
  assert.equal(count('submit_job'), 1);
});

test('A bundle that is not as announced ends the session, because an incomplete upload cannot be taken back', async () => {
  const wrong: readonly [string, AnnouncedBundle][] = [
    ['short', { bytes: [Buffer.alloc(40_000)], size: 50_000, sha256: '' }],
    ['long', { bytes: [Buffer.alloc(60_000)], size: 50_000, sha256: '' }],
    [
      'broken',
      {
        bytes: (async function* () {
          yield await Promise.resolve(Buffer.alloc(40_000));
          throw new Error('the disk is gone');
        })(),
        size: 50_000,
        sha256: '',
      },
    ],
  ];
  for (const [name, bundle] of wrong) {
    const played = await playSession();
    const waiting = assert.rejects(
      played.session.build({ file: 'b.yaml', bundle: Buffer.alloc(1), jobId: 'other' }),
    );
    await assert.rejects(played.session.build({ file: 'a.yaml', bundle, jobId }), failsWith('BUNDLE'), name);
    await waiting;
    assert.equal(await played.session.ended, 'bundle_failed');
    await waitFor(played.hasEnded);
    assert.ok(
      played.frames.every(
        (sent) => sent.type !== 'submit_job_chunk' || !sent.is_last || sent.job_id !== jobId,
      ),
    );
  }
  const { session } = await playSession();
  const huge = { bytes: [], size: 128 * 1024 * 1024 + 1, sha256: '' };
  await assert.rejects(session.build({ file: 'a.yaml', bundle: huge }), failsWith('BUNDLE'));
});

test('Any end of the session ends every pending call with the reason, and leaves no timer', async () => {
  const ends: readonly [string, (played: PlayedSession, abort: AbortController) => void][] = [
    ['superseded', ({ channel }) => channel.terminate('superseded')],
    ['hung_up', ({ channel }) => channel.close()],
    ['hung_up', ({ channel }) => channel.destroy()],
    ['closed', ({ session }) => void session.close()],
    ['closed', (_played, abort) => abort.abort()],
    ['malformed_frame', ({ channel }) => void channel.send([] as unknown as ToOffloader)],
  ];
  for (const [reason, act] of ends) {
    const abort = new AbortController();
    const played = await playSession(abort.signal);
    const { session, clock } = played;
    const lost = failsWith('PROTOCOL', { reason });
    const calls = [
      assert.rejects(session.build({ file: 'a.yaml', bundle: Buffer.alloc(10), jobId }), lost),
      assert.rejects(session.downloadArtifacts(jobId), lost),
      assert.rejects(session.downloadArtifacts('later'), lost),
    ];
    await played.frame('download_artifacts');
    await played.frame('submit_job_chunk');
    act(played, abort);
    await Promise.all(calls);
    assert.equal(await session.ended, reason);
    assert.deepEqual(getEventListeners(abort.signal, 'abort'), []);
    await assert.rejects(session.build({ file: 'a.yaml', bundle: Buffer.alloc(10) }), lost);
    await waitFor(() => played.hasEnded() && clock.waiting === 0, { what: `no timer after ${reason}` });
  }
});

test('A session pings every 30 s, answers pings, and ends when the receiver is silent for 90 s', async () => {
  const { session, channel, clock, frame, count, hasEnded } = await playSession();
  channel.send({ type: 'ping', nonce: 'any' });
  assert.deepEqual(await frame('pong'), { type: 'pong', nonce: 'any' });
  for (let tick = 0; tick < 6; tick++) {
    clock.advance(30_000);
    await frame('ping', tick);
    channel.send({ type: 'novelty' } as unknown as ToOffloader);
    channel.send({ type: 'ping', nonce: tick });
    await frame('pong', tick + 1);
  }
  clock.advance(90_000);
  assert.equal(hasEnded(), false);
  clock.advance(30_000);
  assert.equal(await session.ended, 'heartbeat_timeout');
  assert.equal(count('terminate'), 0);
});

test('A receiver that never closes its end is disconnected after 5 s', async () => {
  const { session, channel, clock, hasEnded } = await playSession();
  channel.pause();
  let isClosed = false;
  const closing = session.close().then(() => (isClosed = true));
  clock.advance(4_999);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([isClosed, hasEnded()], [false, false]);
  clock.advance(1);
  await waitFor(() => isClosed, { what: 'the end of the session' });
  await closing;
  channel.resume();
  await waitFor(hasEnded, { what: 'the end of the connection' });
});

test('The queue status is known from the first frame on, and listeners do not affect each other', async () => {
  const { session, channel, log } = await playSession();
  assert.equal(session.queueStatus(), undefined);
  const seen: unknown[] = [];
  session.onQueueStatus(() => {
    throw new Error('a panel fell over');
  });
  const stop = session.onQueueStatus((status) => seen.push(status));
  channel.send({ type: 'queue_status', idle: false, running: true, queue_depth: 2 });
  await waitFor(() => seen.length === 1);
  assert.deepEqual(session.queueStatus(), { idle: false, running: true, queueDepth: 2 });
  assert.deepEqual(seen, [session.queueStatus()]);
  stop();
  channel.send({ type: 'queue_status', idle: true, running: false, queue_depth: 0 });
  await waitFor(() => session.queueStatus()?.idle);
  assert.equal(seen.length, 1);
  assert.ok(log.entries.includes('error: event listener threw'));
});

test('A build listener that throws does not affect the build', async () => {
  const { session, channel, frame, log } = await playSession();
  const fails = (): never => {
    throw new Error('a progress bar fell over');
  };
  const building = session.build({
    file: 'a.yaml',
    bundle: Buffer.alloc(1),
    jobId,
    onState: fails,
    onOutput: fails,
  });
  await frame('submit_job_chunk');
  channel.send(ack(true));
  channel.send({ type: 'job_output', job_id: jobId, stream: 'stdout', line: 'x\n' });
  channel.send(state('completed'));
  assert.equal((await building).status, 'completed');
  assert.equal(log.entries.filter((entry) => entry === 'error: build listener threw').length, 2);
});

/** Sends an archive like a receiver; `change` corrupts its frames. */
async function sendArchive(
  { channel }: PlayedSession,
  archive: Buffer,
  change: (frames: ToOffloader[]) => readonly ToOffloader[] = (frames) => frames,
): Promise<void> {
  const chunks: ToOffloader[] = [];
  for await (const piece of inChunks([archive], 32_768)) {
    const data_b64 = piece.toString('base64');
    chunks.push({
      type: 'artifacts_chunk',
      job_id: jobId,
      chunk_index: chunks.length,
      data_b64,
      is_last: false,
    });
  }
  const last = chunks.pop();
  assert.ok(last?.type === 'artifacts_chunk');
  const frames: ToOffloader[] = [
    {
      type: 'artifacts_start',
      job_id: jobId,
      total_bytes: archive.length,
      num_chunks: chunks.length + 1,
      artifacts_sha256: sha256(archive).toUpperCase(),
      firmware_offset: '0x10000',
    },
    ...chunks,
    { ...last, is_last: true },
    { type: 'artifacts_end', job_id: jobId, accepted: true },
  ];
  for (const frame of change(frames)) {
    await channel.drained(65_536);
    channel.send(frame);
  }
}

test('Artifacts arrive complete in memory or in a file, one download after the other', async (t) => {
  const directory = await tempDir(t);
  const played = await playSession();
  const { session, frame, count } = played;
  const archive = randomBytes(3_000_000);
  const facts = { size: archive.length, sha256: sha256(archive), firmwareOffset: '0x10000' };
  const path = join(directory, 'artifacts.tar.gz');
  const [first, second] = [session.downloadArtifacts(jobId), session.saveArtifacts(jobId, path)];
  await frame('download_artifacts');
  await sendArchive(played, archive);
  assert.deepEqual(await first, { ...facts, bytes: archive });
  await frame('download_artifacts', 1);
  assert.deepEqual(await readdir(directory), ['artifacts.tar.gz.part']);
  await sendArchive(played, archive);
  assert.deepEqual(await second, facts);
  assert.deepEqual(await readdir(directory), ['artifacts.tar.gz']);
  assert.deepEqual(await readFile(path), archive);
  assert.equal(count('download_artifacts'), 2);
});

test("Every violation of the stream's rules fails the download, and leaves no file", async (t) => {
  const directory = await tempDir(t);
  const played = await playSession();
  const { session, frame } = played;
  const archive = randomBytes(100_000);
  const swap = (frames: ToOffloader[], index: number, fields: object): ToOffloader[] =>
    frames.map((sent, at) => (at === index ? { ...sent, ...fields } : sent));
  const cases: readonly [string, (frames: ToOffloader[]) => ToOffloader[]][] = [
    ['a wrong hash', (frames) => swap(frames, 0, { artifacts_sha256: 'ab'.repeat(32) })],
    ['too much announced', (frames) => swap(frames, 0, { total_bytes: 256 * 1024 * 1024 + 1 })],
    ['nothing announced', (frames) => swap(frames, 0, { total_bytes: 0 })],
    ['a byte more than announced', (frames) => swap(frames, 0, { total_bytes: archive.length - 1 })],
    ['a byte less than announced', (frames) => swap(frames, 0, { total_bytes: archive.length + 1 })],
    ['a wrong count', (frames) => swap(frames, 0, { num_chunks: 5 })],
    ['no base64', (frames) => swap(frames, 2, { data_b64: 'AAA_' })],
    ['a chunk twice', (frames) => frames.toSpliced(2, 0, frames[1] as ToOffloader)],
    ['a chunk missing', (frames) => frames.toSpliced(2, 1)],
    ['no start', (frames) => frames.slice(1)],
    ['two starts', (frames) => frames.toSpliced(2, 0, frames[0] as ToOffloader)],
    ['an early end', (frames) => frames.toSpliced(3, 2)],
    ['a chunk after the last', (frames) => frames.toSpliced(5, 0, frames[4] as ToOffloader)],
  ];
  for (const [index, [name, change]] of cases.entries()) {
    const saving = session.saveArtifacts(jobId, join(directory, 'artifacts'));
    const failing = assert.rejects(saving, failsWith('PROTOCOL'), name);
    await frame('download_artifacts', index);
    await sendArchive(played, archive, change);
    await failing;
    assert.deepEqual(await readdir(directory), [], name);
  }
  const good = session.downloadArtifacts(jobId);
  await frame('download_artifacts', cases.length);
  await sendArchive(played, archive, (frames) => [
    { type: 'artifacts_end', job_id: 'another', accepted: false, reason: 'busy' },
    ...frames,
  ]);
  assert.deepEqual((await good).bytes, archive, 'the session is still good for the next one');
});

test('A refused download throws the reason and the detail, also after a start', async () => {
  const played = await playSession();
  const { session, channel, frame } = played;
  const refusal = { reason: 'build_dir_missing', detail: 'no idedata' };
  const first = assert.rejects(session.downloadArtifacts(jobId), failsWith('REJECTED', refusal));
  await frame('download_artifacts');
  channel.send({ type: 'artifacts_end', job_id: jobId, accepted: false, ...refusal });
  await first;
  const second = assert.rejects(
    session.downloadArtifacts(jobId),
    failsWith('REJECTED', { reason: 'stream_failed' }),
  );
  await frame('download_artifacts', 1);
  await sendArchive(played, randomBytes(100_000), (frames) => [
    ...frames.slice(0, 3),
    { type: 'artifacts_end', job_id: jobId, accepted: false, reason: 'stream_failed' },
  ]);
  await second;
});

test('A file that cannot be written fails the download and not the session', async (t) => {
  const directory = await tempDir(t);
  const played = await playSession();
  const { session, frame } = played;
  const saving = assert.rejects(session.saveArtifacts(jobId, join(directory, 'missing', 'artifacts')), {
    code: 'ENOENT',
  });
  await frame('download_artifacts');
  await sendArchive(played, randomBytes(3_000_000));
  await saving;
  const archive = randomBytes(10);
  const next = session.downloadArtifacts(jobId);
  await frame('download_artifacts', 1);
  await sendArchive(played, archive);
  assert.deepEqual((await next).bytes, archive);
});

test('A slow disk pauses the receiver, and a disk error resumes it', async (t) => {
  const directory = await tempDir(t);
  const played = await playSession();
  const { session, channel, frame } = played;
  const path = join(directory, 'artifacts');
  execFileSync('mkfifo', [`${path}.part`]);
  const saving = assert.rejects(session.saveArtifacts(jobId, path), { code: 'EPIPE' });
  await frame('download_artifacts');
  const sending = sendArchive(played, randomBytes(3_000_000));
  const isHeld = async (): Promise<boolean> => {
    const before = channel.bufferedBytes;
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    return before > 65_536 && channel.bufferedBytes === before;
  };
  await waitFor(isHeld, { what: 'that nothing is taken while nothing can be written' });
  await (await open(`${path}.part`, 'r')).close();
  await saving;
  await sending;
  const archive = randomBytes(10);
  const next = session.downloadArtifacts(jobId);
  await frame('download_artifacts', 1);
  await sendArchive(played, archive);
  assert.deepEqual((await next).bytes, archive);
});
