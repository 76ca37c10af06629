/** Covers src/bundles/unpack-messages.ts and src/bundles/unpack-worker.ts. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';

import { systemClock } from '../../src/async/clock.js';
import { openIntake, type BundleIntake } from '../../src/bundles/intake.js';
import { spaceOf, type StagingRoom } from '../../src/bundles/store.js';
import { openThreadedIntake, unpackThread } from '../../src/bundles/threaded-intake.js';
import type { ToThread } from '../../src/bundles/unpack-messages.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { bundle, config, directory as directoryMember, file, manifest, tar, treeOf } from './archives.js';
import { configurationFilename, send } from './send.js';
import { defaultOptions } from '../support/options.js';

const { bundleLimits } = defaultOptions;

const noise = randomBytes(3 << 20);
const archive = gzipSync(tar(manifest(), file('noise', noise), config), { level: 1 });
const pieces = Array.from({ length: Math.ceil(archive.length / 32_768) }, (_, at) =>
  archive.subarray(at * 32_768, (at + 1) * 32_768),
);

async function open(t: Cleanups): Promise<{ intake: BundleIntake; uploadsDir: string }> {
  const uploadsDir = join(await tempDir(t), 'uploads');
  return { uploadsDir, intake: openThreadedIntake({ uploadsDir, configurationFilename, bundleLimits }) };
}

test('A bundle unpacked in the thread equals one unpacked in the main thread', async (t) => {
  const { intake, uploadsDir } = await open(t);
  const staged = await send(intake, pieces);
  const same = await send(
    openIntake({ uploadsDir, configurationFilename, bundleLimits, clock: systemClock }),
    pieces,
  );
  const { directory, ...facts } = staged;
  const { directory: other, ...sameFacts } = same;
  assert.deepEqual(JSON.parse(JSON.stringify(facts)), JSON.parse(JSON.stringify(sameFacts)));
  assert.deepEqual(await treeOf(directory), await treeOf(other));
  await staged.discard();
  await same.discard();
  assert.deepEqual(await readdir(uploadsDir), []);
});

test('The content’s hash does not depend on the packing, and changes with every change of the content', async (t) => {
  const uploadsDir = await tempDir(t);
  const hashOf = async (bytes: Buffer): Promise<string> => {
    const staged = await send(openThreadedIntake({ uploadsDir, configurationFilename, bundleLimits }), [
      bytes,
    ]);
    await staged.discard();
    return staged.contentSha256;
  };
  const plain = tar(manifest(), file('a', 'bc'), config);
  const first = await hashOf(gzipSync(plain));
  const stamped = gzipSync(plain, { level: 9 });
  stamped.writeUInt32LE(1_790_000_000, 4);
  assert.equal(await hashOf(stamped), first, 'the time of packing is no content');
  const changes = [
    tar(manifest(), file('a', 'bd'), config),
    tar(manifest(), file('ab', 'c'), config),
    tar(manifest(), file('a', 'bc'), file('b', ''), config),
    tar(manifest(), config),
  ];
  const hashes = new Set([first]);
  for (const change of changes) hashes.add(await hashOf(gzipSync(change)));
  assert.equal(hashes.size, changes.length + 1);
});

/** A share of so many bytes. */
function roomOf(bytes: number): StagingRoom & { held: number } {
  return {
    held: 0,
    take(more) {
      if (this.held + more > bytes) return { reason: 'quota_exceeded', detail: 'it is used up' };
      this.held += more;
      return null;
    },
    release() {
      this.held = 0;
    },
  };
}

test('The space of a bundle on the disk is counted before each write, until the bundle is discarded', async (t) => {
  const uploadsDir = await tempDir(t);
  const members = Array.from({ length: 300 }, (_, n) => file(`f${n}`, 'x'));
  const bytes = gzipSync(tar(manifest(), config, ...members, file('zeros', Buffer.alloc(3 << 20))));
  const room = roomOf(5 << 20);
  const options = { uploadsDir, configurationFilename, bundleLimits };
  const staged = await send(openThreadedIntake({ ...options, room }), [bytes]);
  assert.ok(room.held >= spaceOf(staged) && room.held <= 5 << 20, `${room.held} for ${spaceOf(staged)}`);
  assert.ok(spaceOf(staged) > (3 << 20) + 300 * 4_096, 'a small file takes a block');
  await staged.discard();
  assert.equal(room.held, 0);
});

test('A bundle without room is refused while it is unpacked, and leaves no file and no counted space', async (t) => {
  const uploadsDir = await tempDir(t);
  const options = { uploadsDir, configurationFilename, bundleLimits };
  const room = roomOf(2 << 20);
  const zeros = (n: number): Buffer => file(`zeros${n}`, Buffer.alloc(1 << 20));
  const bomb = gzipSync(tar(manifest(), config, ...Array.from({ length: 60 }, (_, n) => zeros(n))));
  const why: string[] = [];
  const onRefused = ({ reason }: { reason: string }): void => void why.push(reason);
  const intake = openThreadedIntake({ ...options, room, onRefused });
  intake.write(bomb.subarray(0, -8));
  const ending = intake.finish();
  await assert.rejects(ending, { code: 'RESOURCE', message: 'quota_exceeded: it is used up' });
  assert.deepEqual([why, room.held, await readdir(uploadsDir)], [['quota_exceeded'], 0, []]);
  const aborted = openThreadedIntake({ ...options, room });
  aborted.write(bomb);
  await aborted.abort();
  assert.deepEqual([room.held, await readdir(uploadsDir)], [0, []]);
  const exact = await send(openThreadedIntake({ ...options, room: roomOf(12_500) }), [bundle()]);
  await exact.discard();
});

test('A refusal keeps its code on the way from the thread, and so does a disk error', async (t) => {
  const { intake, uploadsDir } = await open(t);
  const damaged = send(intake, [bundle(file('../out'))]);
  await assert.rejects(damaged, { name: 'ReceiverError', code: 'BUNDLE' });
  assert.deepEqual(await readdir(uploadsDir), []);

  const noDirectory = join(await tempDir(t), 'file');
  await writeFile(noDirectory, '');
  const onFile = openThreadedIntake({
    uploadsDir: join(noDirectory, 'below'),
    configurationFilename,
    bundleLimits,
  });
  await assert.rejects(send(onFile, pieces), { code: 'ENOTDIR' });

  const smallLimits = { ...bundleLimits, unpackedBytes: 1_000 };
  const small = openThreadedIntake({ uploadsDir, configurationFilename, bundleLimits: smallLimits });
  await assert.rejects(send(small, pieces), { code: 'BUNDLE', message: /more than 1000 bytes/ });
  assert.deepEqual(await readdir(uploadsDir), []);
});

test('Uploads that arrive at the same time do not mix', async (t) => {
  const uploadsDir = await tempDir(t);
  const names = ['a', 'b', 'c', 'd', 'e'];
  const staged = await Promise.all(
    names.map(async (name) => {
      const own = gzipSync(tar(manifest(), file(name, noise.subarray(0, 1 << 20)), config), { level: 0 });
      const intake = openThreadedIntake({ uploadsDir, configurationFilename, bundleLimits });
      for (let at = 0; at < own.length; at += 10_007) {
        if (!intake.write(own.subarray(at, at + 10_007))) await intake.drain();
        await sleep(0);
      }
      return intake.finish();
    }),
  );
  for (const [at, name] of names.entries()) {
    const tree = await treeOf(staged[at]?.directory ?? '');
    assert.deepEqual([...tree.keys()], [name, 'kitchen.yaml', 'manifest.json'].toSorted());
    assert.equal(tree.get(name), noise.subarray(0, 1 << 20).toString('latin1'));
  }
});

test('A sender that does not wait is asked to wait, and can reuse its bytes at once', async (t) => {
  const { intake } = await open(t);
  const buffer = Buffer.alloc(32_768);
  let waits = 0;
  for (const piece of pieces) {
    piece.copy(buffer);
    if (intake.write(buffer.subarray(0, piece.length))) continue;
    waits += 1;
    await intake.drain();
  }
  assert.ok(waits > 3, `${waits} waits`);
  const staged = await intake.finish();
  assert.equal((await treeOf(staged.directory)).get('noise'), noise.toString('latin1'));
});

for (const [moment, before] of [
  ['at once', () => {}],
  [
    'before the last byte',
    (intake: BundleIntake) => pieces.slice(0, 40).forEach((piece) => intake.write(piece)),
  ],
  ['after a damaged byte', (intake: BundleIntake) => intake.write(Buffer.from('no gzip'))],
] as const) {
  test(`An upload that is given up ${moment} leaves nothing, and ends as cancelled`, async (t) => {
    const { intake, uploadsDir } = await open(t);
    before(intake);
    await Promise.all([intake.abort(), intake.abort()]);
    await intake.drain();
    assert.equal(intake.write(Buffer.from('more')), true, 'further bytes are dropped');
    assert.deepEqual(await readdir(uploadsDir).catch(() => []), []);
    await assert.rejects(intake.finish(), { code: 'CANCELLED' });
  });
}

test('An upload aborted while its end is awaited is cancelled and leaves nothing', async (t) => {
  const { intake, uploadsDir } = await open(t);
  for (const piece of pieces) intake.write(piece);
  const finished = assert.rejects(intake.finish(), { code: 'CANCELLED' });
  await intake.abort();
  await finished;
  assert.deepEqual(await readdir(uploadsDir), []);
});

test('A late abort does not remove a finished bundle', async (t) => {
  const { intake } = await open(t);
  const staged = await send(intake, pieces);
  await intake.abort();
  assert.equal((await treeOf(staged.directory)).size, 3);
});

test('When the thread dies its uploads fail and leave nothing, and the next bundle gets a new thread', async (t) => {
  const { intake, uploadsDir } = await open(t);
  for (const piece of pieces.slice(0, 20)) intake.write(piece);
  const given = openThreadedIntake({ uploadsDir, configurationFilename, bundleLimits });
  await waitFor(async () => (await readdir(uploadsDir)).length === 2, { what: 'both directories' });
  const aborted = given.abort();
  // An invalid message.
  unpackThread().tell({ type: 'bytes', upload: 0 } as unknown as ToThread);
  unpackThread().tell(null as unknown as ToThread);
  await assert.rejects(intake.finish(), { code: 'STATE' });
  await aborted;
  await intake.abort();
  assert.deepEqual(await readdir(uploadsDir), []);
  const next = await send(openThreadedIntake({ uploadsDir, configurationFilename, bundleLimits }), pieces);
  assert.equal((await treeOf(next.directory)).size, 3);
});

test('A small bundle overtakes bundles of many files that arrived before it', async (t) => {
  const uploadsDir = await tempDir(t);
  const many = Array.from({ length: 5_000 }, (_, index) => file(`many/${index % 50}/${index}`, 'x'));
  const directories = Array.from({ length: 50 }, (_, index) => directoryMember(`many/${index}`));
  const large = gzipSync(tar(manifest(), config, directoryMember('many'), ...directories, ...many), {
    level: 1,
  });
  const small = gzipSync(tar(manifest(), config));
  const ended: string[] = [];
  const unpack = async (name: string, bytes: Buffer): Promise<void> => {
    const staged = await send(openThreadedIntake({ uploadsDir, configurationFilename, bundleLimits }), [
      bytes,
    ]);
    ended.push(name);
    await staged.discard();
  };
  const larges = Array.from({ length: 3 }, () => unpack('large', large));
  // They have begun, and all their bytes are with the thread.
  await waitFor(async () => (await readdir(uploadsDir)).length === 3, { what: 'the large bundles' });
  await unpack('small', small);
  assert.deepEqual(ended, ['small']);
  await Promise.all(larges);
});

test('An upload that is cancelled between its turns stops and leaves nothing behind', async (t) => {
  const uploadsDir = await tempDir(t);
  const many = Array.from({ length: 15_000 }, (_, index) => file(`${index}`, 'x'));
  const large = gzipSync(tar(manifest(), config, ...many), { level: 1 });
  const intake = openThreadedIntake({ uploadsDir, configurationFilename, bundleLimits });
  const sending = assert.rejects(send(intake, [large]), { code: 'CANCELLED' });
  await waitFor(async () => (await readdir(uploadsDir)).length === 1, { what: 'its beginning' });
  const began = performance.now();
  await intake.abort();
  const ms = performance.now() - began;
  await sending;
  assert.deepEqual(await readdir(uploadsDir), []);
  t.diagnostic(`${Math.round(ms)} ms`);
});
