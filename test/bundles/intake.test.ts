import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';

import fc from 'fast-check';
import { pack } from 'tar-stream';

import { openIntake, type BundleIntake } from '../../src/bundles/intake.js';
import type { StagedBundle } from '../../src/bundles/staged.js';
import { fileName } from '../../src/paths/index.js';
import { tempDir } from '../support/temp-dir.js';
import { bundle, config, configName, file, manifest, member, pax, tar, treeOf } from './archives.js';

const configurationFilename = fileName(configName);

async function send(intake: BundleIntake, pieces: Iterable<Buffer>): Promise<StagedBundle> {
  for (const piece of pieces) {
    if (!intake.write(piece)) await intake.drain();
  }
  return intake.finish();
}

async function take(uploadsDir: string, archive: Buffer): Promise<StagedBundle> {
  return send(openIntake({ uploadsDir, configurationFilename }), [archive]);
}

/** Written by Python's tarfile as `esphome bundle` 2026.10 does: PAX for the long name that is not ASCII. */
const fromPython = Buffer.from(
  'H4sIAHIaBmsC/+2Y327bIBTGfe2noL7ebHAcW7JUtZe93P06Rcg+xKwxREDWTtWeZW+xF+iLDRKvyz9pN4tTped3AYKDsAT+vgP0XEkB' +
    '1qVfrVbRaaCesijWtWe/ZjR/jW36GS2KSURoNAIr67jxn4/eJ88xIUk//ASzb2Cs1CqpCfsQAmCXne5hqz/JaV6mjKY0WY9otBJyPhNyAYr3' +
    'EEY8SNd0oNLvvF/sDGqlCfFs08yGyTdDwgTWRz/7Bjkyh+9LG933WmWPUsidgG06I4UDlc3N/YpSUYayFfAR27ttUC2kzonEL9yX9bp33M4s' +
    'NAZcWH1nVhD/iJB3w7D3az1F5/F/Sgu67/95hf4/CsFMZ0tu7aM2rTdnpR3hxABfEK0giVEhl81BUj2H/qeTPf0zNkH9j+P/VnrZh3NY/NcF' +
    'rjZZgeyYA1rBJbJ90D5f/q8O8v+0Qv2PwXAJq/1dINzfajL8EHGnravjhZ7PwdSo/YvN/1ma3X7iT3fAWzCn0/8R3b9qPp8evP/krIzIE+r/' +
    '5LAqJ0vuuuvtR5SXXy8/w+PB26j/PFqgCZ3i/Le17Tc3YdH/f/nP/E/39J+XrJpi/h8DoZVDFSAIgiAIgiAIgiDIZfMb906iugAoAAA=',
  'base64',
);
const longName = `schriften/${'größe-'.repeat(18)}ende.ttf`;

test('A bundle made as ESPHome makes it becomes its tree, manifest and dot files included', async (t) => {
  const uploadsDir = join(await tempDir(t), 'new', 'uploads');
  const staged = await take(uploadsDir, fromPython);
  assert.equal(staged.configFile, 'kitchen.yaml');
  assert.equal(staged.manifest.esphomeVersion, '2026.10.0');
  assert.deepEqual(
    [...(await treeOf(staged.directory)).keys()],
    [
      '.common/',
      '.common/wifi.yaml',
      'kitchen.yaml',
      'manifest.json',
      'schriften/',
      longName,
      'secrets.yaml',
    ],
  );
  assert.deepEqual(staged.hints, { buildPath: false, remoteParts: false });
  assert.equal((await stat(staged.directory)).mode & 0o777, 0o700, 'a bundle holds secrets');
  await staged.discard();
  assert.deepEqual(await readdir(uploadsDir), []);
  await staged.discard();
});

test('Any cut of a bundle into chunks gives the same tree', async (t) => {
  const uploadsDir = await tempDir(t);
  const deep = `${`${'pä'.repeat(50)}/`.repeat(5)}naïve-Ünïcode.h`;
  const plain = tar(
    manifest(),
    pax({ path: deep, mtime: '1.5' }),
    file('f', randomBytes(3_000).toString('latin1')),
    member({ name: '././@LongLink', type: 'L' }, `${longName}\0`),
    file('g', 'g'),
    config,
    file('empty', ''),
    Buffer.alloc(8_192),
  );
  const archive = gzipSync(plain, { level: 1 });
  const whole = await take(uploadsDir, archive);
  const expected = await treeOf(whole.directory);
  assert.ok(expected.has(deep) && expected.has(longName));
  const cuts = fc.uniqueArray(fc.nat(archive.length), { maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(cuts, async (points) => {
      const at = [0, ...points.toSorted((a, b) => a - b), archive.length];
      const pieces = at.slice(1).map((to, i) => archive.subarray(at[i], to));
      const staged = await send(openIntake({ uploadsDir, configurationFilename }), pieces);
      assert.deepEqual(await treeOf(staged.directory), expected);
      await staged.discard();
    }),
    { numRuns: 25 },
  );
  const single = Array.from(archive.subarray(0), (byte) => Buffer.from([byte]));
  const staged = await send(openIntake({ uploadsDir, configurationFilename }), single);
  assert.deepEqual(await treeOf(staged.directory), expected, 'byte by byte as well');
});

test('An archive of another library is read too, with its directories and a comment', async (t) => {
  const archive = pack();
  archive.entry(
    { name: 'manifest.json' },
    JSON.stringify({ manifest_version: 1, config_filename: configName }),
  );
  archive.entry({ name: 'fonts', type: 'directory' });
  archive.entry({ name: `fonts/${'ö'.repeat(90)}.ttf` }, 'font');
  archive.entry({ name: configName }, 'host:');
  archive.finalize();
  const pieces: Buffer[] = [];
  for await (const piece of archive) pieces.push(piece as Buffer);
  const comment = pax({ comment: '52 words' }, 'g');
  const staged = await take(await tempDir(t), gzipSync(Buffer.concat([comment, ...pieces])));
  const tree = await treeOf(staged.directory);
  assert.equal(tree.get(`fonts/${'ö'.repeat(90)}.ttf`), 'font');
  assert.equal(staged.members, 4);
});

test('Of modes only the right to execute is kept, and no time or special bit', async (t) => {
  const script = member({ name: 'run.sh', mode: 0o6755 }, 'x');
  const locked = member({ name: 'locked/', type: '5', mode: 0 });
  const open = member({ name: 'open.h', mode: 0o2666 }, 'x');
  const future = [pax({ mtime: '99999999999' }), file('future.h')];
  const before = Date.now();
  const staged = await take(await tempDir(t), bundle(script, locked, file('locked/x.h'), open, ...future));
  const modeOf = async (name: string): Promise<number> =>
    (await stat(join(staged.directory, name))).mode & 0o7777;
  assert.equal(await modeOf('run.sh'), 0o755 & ~process.umask());
  assert.equal(await modeOf('open.h'), 0o644 & ~process.umask());
  assert.equal(await modeOf('locked'), 0o755 & ~process.umask());
  const { mtimeMs } = await stat(join(staged.directory, 'future.h'));
  assert.ok(mtimeMs >= before - 5_000 && mtimeMs <= Date.now() + 5_000);
});

test('A sender that does not wait is asked to, and an upload is not held in memory', async (t) => {
  const uploadsDir = await tempDir(t);
  const archive = gzipSync(tar(manifest(), config, file('noise', randomBytes(6 << 20))), { level: 0 });
  const intake = openIntake({ uploadsDir, configurationFilename });
  let waits = 0;
  for (let at = 0; at < archive.length; at += 32_768) {
    if (intake.write(archive.subarray(at, at + 32_768))) continue;
    waits += 1;
    await intake.drain();
  }
  assert.ok(waits > 5, `${waits} waits`);
  const staged = await intake.finish();
  assert.equal(staged.bytes, (6 << 20) + 32 + 56);
});

const hintCases: readonly (readonly [
  text: string,
  buildPath: boolean,
  remoteParts: boolean,
  name?: string,
])[] = [
  ['sensor:\n  - platform: template\n    name: "${room} light"\n    lambda: return 4.0;\n', false, false],
  ['esphome:\n  build_path: /home\n', true, false],
  ['"build\\x5fpath": /home', true, false],
  ['"build\\\n  _path": /home', true, false],
  ['esphome:\n  $key: /home', true, false],
  ['esphome:\n  ${"build" ~ "_path"}: /home', true, false],
  ['build_path', true, false, 'included.txt'],
  ['c = "\\x41"; x = { $a: 1 }', false, false, 'code.h'],
  ['packages:\n  wifi: !include wifi.yaml\n', false, false],
  ['packages:\n  wifi: github://me/repo/wifi.yaml@main\n', false, true],
  ['packages:\n  wifi:\n    url: https://example.org/me/repo\n', false, true],
  ['external_components:\n  - source: my_components\n', false, true],
];

test('What may name a build path or fetch parts is noticed while unpacking', async (t) => {
  const uploadsDir = await tempDir(t);
  for (const [text, buildPath, remoteParts, name = 'more.yaml'] of hintCases) {
    const staged = await take(uploadsDir, bundle(file(name, text)));
    assert.deepEqual(staged.hints, { buildPath, remoteParts }, text);
  }
  const start = 2 * 1_024 + 512; // manifest and configuration with their headers, and its own
  for (let before = 1; before < 10; before += 1) {
    const text = `${'.'.repeat(65_536 - start - before)}build_path${'.'.repeat(9_999)}`;
    const staged = await take(uploadsDir, bundle(file('big.txt', text)));
    assert.equal(staged.hints.buildPath, true, `a word cut after ${before} bytes by the end of a piece`);
  }
});

const archive = bundle(file('noise', randomBytes(300_000)));

test('An abort at any moment removes everything and nothing is thrown afterwards', async (t) => {
  const uploadsDir = await tempDir(t);
  for (let step = 0; step < 24; step += 1) {
    const intake = openIntake({ uploadsDir, configurationFilename });
    const pieces = [archive.subarray(0, 100_000), archive.subarray(100_000)];
    for (const piece of pieces.slice(0, step % 3)) intake.write(piece);
    const finished = step >= 12 ? assert.rejects(intake.finish(), { code: 'CANCELLED' }) : null;
    for (let turns = 0; turns < step % 6; turns += 1) await turn();
    await Promise.all([intake.abort(), intake.abort()]);
    assert.deepEqual(await readdir(uploadsDir), []);
    await finished;
    assert.equal(intake.write(archive), true, 'further bytes are dropped');
    await intake.drain();
    await intake.abort();
    if (finished === null) await assert.rejects(intake.finish(), { code: 'CANCELLED' });
  }
});

test('A signal cancels an upload, also one that was aborted before', async (t) => {
  const uploadsDir = await tempDir(t);
  const controller = new AbortController();
  const { signal } = controller;
  const intake = openIntake({ uploadsDir, configurationFilename, signal });
  intake.write(archive.subarray(0, 1_000));
  controller.abort();
  await assert.rejects(intake.finish(), { code: 'CANCELLED' });
  await assert.rejects(send(openIntake({ uploadsDir, configurationFilename, signal }), [archive]), {
    code: 'CANCELLED',
  });
  assert.deepEqual(await readdir(uploadsDir), []);
});

test('A finished bundle belongs to its caller: neither abort nor the signal takes it away', async (t) => {
  const uploadsDir = await tempDir(t);
  const controller = new AbortController();
  const intake = openIntake({ uploadsDir, configurationFilename, signal: controller.signal });
  const staged = await send(intake, [archive]);
  const aborted = once(controller.signal, 'abort');
  controller.abort();
  await aborted;
  await intake.abort();
  assert.equal((await treeOf(staged.directory)).size, 3);
});

test('A waiting sender is let go when the bundle is refused', async (t) => {
  const intake = openIntake({ uploadsDir: await tempDir(t), configurationFilename });
  const refused = gzipSync(Buffer.concat([file('../x'), randomBytes(4 << 20)]), { level: 0 });
  let at = 0;
  while (at < refused.length && intake.write(refused.subarray(at, at + 32_768))) at += 32_768;
  assert.ok(at < refused.length, 'it was asked to wait');
  await intake.drain();
  for (; at < refused.length; at += 32_768) {
    if (!intake.write(refused.subarray(at, at + 32_768))) await intake.drain();
  }
  await assert.rejects(intake.finish(), { code: 'BUNDLE', message: /leads upwards/ });
});

test('What the disk refuses is told as such, and is not the fault of the bundle', async (t) => {
  const root = await tempDir(t);
  await writeFile(join(root, 'file'), '');
  await assert.rejects(take(join(root, 'file', 'uploads'), archive), { code: 'ENOTDIR' });
});
