import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

import { pack, type Header } from 'tar-stream';

import { isReceiverError } from '../../src/errors.js';
import { unpackArtifacts } from '../../src/koa/offloader.js';
import { tempDir } from '../support/temp-dir.js';

type Member = readonly [name: string, content: string, headers?: Partial<Header>];

async function archiveOf(members: readonly Member[]): Promise<Buffer> {
  const tar = pack();
  for (const [name, content, headers] of members) tar.entry({ name, ...headers }, content);
  tar.finalize();
  return gzipSync(await buffer(tar));
}

function storage(fields: object = {}): string {
  return JSON.stringify({
    storage_version: 1,
    name: 'kitchen',
    esp_platform: 'HOST',
    toolchain: 'host',
    build_path: '/srv/builds/build/kitchen',
    firmware_bin_path: '/srv/builds/build/kitchen/.pioenvs/kitchen/program',
    ...fields,
  });
}

const program: Member = ['.pioenvs/kitchen/program', '#!/bin/sh\n', { mode: 0o4755 }];

test('Artifacts are unpacked as plain files, and the receiver\u2019s paths are mapped to the directory', async (t) => {
  const root = await tempDir(t);
  const archive = await archiveOf([
    ['storage.json', storage()],
    ['idedata.json', '{}'],
    ['platformio.ini', ''],
    program,
  ]);
  const directory = join(root, 'out');
  const unpacked = await unpackArtifacts(archive, directory);
  assert.deepEqual(unpacked.members, [
    'storage.json',
    'idedata.json',
    'platformio.ini',
    '.pioenvs/kitchen/program',
  ]);
  assert.equal(unpacked.firmwarePath, join(directory, '.pioenvs/kitchen/program'));
  assert.equal(unpacked.idedataPath, join(directory, 'idedata.json'));
  assert.equal(unpacked.storage.name, 'kitchen');
  assert.equal(await readFile(unpacked.storagePath, 'utf8'), storage(), 'byte for byte');
  assert.equal(
    (await stat(unpacked.firmwarePath)).mode & 0o7777,
    0o755,
    'executable, without the setuid bit',
  );
  assert.equal((await stat(unpacked.storagePath)).mode & 0o7777, 0o644);

  const file = join(root, 'artifacts.tar.gz');
  await writeFile(file, archive);
  assert.deepEqual((await unpackArtifacts(file, join(root, 'again'))).members, unpacked.members);
});

test('Paths of a receiver on Windows are understood', async (t) => {
  const windows = {
    build_path: 'C:\\esphome\\build\\kitchen',
    firmware_bin_path: 'C:\\esphome\\build\\kitchen\\.pioenvs\\kitchen\\program',
  };
  const directory = join(await tempDir(t), 'out');
  const unpacked = await unpackArtifacts(
    await archiveOf([['storage.json', storage(windows)], program]),
    directory,
  );
  assert.equal(unpacked.firmwarePath, join(directory, '.pioenvs/kitchen/program'));
  assert.equal(unpacked.idedataPath, null);
});

const good: Member = ['storage.json', storage()];
const refusedArchives: Readonly<Record<string, readonly Member[]>> = {
  'a path that leads upwards': [good, program, ['../escaped', 'x']],
  'a path that leads upwards inside': [good, program, ['a/../../escaped', 'x']],
  'an absolute path': [good, program, ['/tmp/escaped', 'x']],
  'a backslash': [good, program, ['a\\escaped', 'x']],
  'a drive': [good, program, ['C:escaped', 'x']],
  'a symbolic link': [good, program, ['link', '', { type: 'symlink', linkname: '/etc/passwd' }]],
  'a hard link': [good, program, ['link', '', { type: 'link', linkname: 'storage.json' }]],
  'a device': [good, program, ['null', '', { type: 'character-device' }]],
  'a fifo': [good, program, ['fifo', '', { type: 'fifo' }]],
  'a directory': [good, program, ['empty/', '', { type: 'directory' }]],
  'no storage.json': [program],
  'a storage.json that is not an object': [['storage.json', '[]'], program],
  'an invalid device name': [['storage.json', storage({ name: '../kitchen' })], program],
  'no build path': [['storage.json', storage({ build_path: null })], program],
  'no firmware': [good],
  'a firmware outside its build': [
    ['storage.json', storage({ firmware_bin_path: '/srv/builds/build/other/program' })],
    program,
  ],
};

for (const [what, members] of Object.entries(refusedArchives)) {
  test(`An archive with ${what} is refused, and leaves no file`, async (t) => {
    const root = await tempDir(t);
    await assert.rejects(unpackArtifacts(await archiveOf(members), join(root, 'in', 'out')), (error) => {
      assert.ok(isReceiverError(error, 'ARTIFACTS'), String(error));
      assert.ok(!error.message.includes(root), 'the message holds no path of this machine');
      return true;
    });
    assert.deepEqual(await readdir(join(root, 'in')), []);
  });
}

test('A repeated member, a damaged archive and a non-empty directory are refused', async (t) => {
  const root = await tempDir(t);
  const out = join(root, 'out');
  await assert.rejects(unpackArtifacts(await archiveOf([good, program, good]), out), { code: 'ARTIFACTS' });
  const below: Member = ['storage.json/below', 'x'];
  await assert.rejects(unpackArtifacts(await archiveOf([good, program, below]), out), { code: 'ARTIFACTS' });
  const archive = await archiveOf([good, program]);
  for (const damaged of [
    Buffer.from('no gzip'),
    archive.subarray(0, -20),
    gzipSync('no tar'),
    Buffer.alloc(0),
  ]) {
    await assert.rejects(unpackArtifacts(damaged, out), { code: 'ARTIFACTS' });
  }
  assert.deepEqual(await readdir(root), []);
  await mkdir(out);
  await writeFile(join(out, 'mine'), 'x');
  await assert.rejects(unpackArtifacts(archive, out), { code: 'STATE' });
  assert.deepEqual(await readdir(out), ['mine'], 'what was there is untouched');
});

test('An archive bomb is refused before it fills the disk', async (t) => {
  const root = await tempDir(t);
  const piece = gzipSync(Buffer.alloc(10 * 1024 * 1024));
  const bomb = Buffer.concat(Array.from({ length: 30 }, () => piece));
  await assert.rejects(unpackArtifacts(bomb, join(root, 'out')), { code: 'ARTIFACTS' });
  assert.deepEqual(await readdir(root), []);
});
