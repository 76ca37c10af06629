/** Covers src/bundles/extract.ts, src/bundles/inflate.ts and src/bundles/tar-reader.ts. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';

import { pack } from 'tar-stream';

import { systemClock } from '../../src/async/clock.js';
import { openIntake } from '../../src/bundles/intake.js';
import { measure } from '../../src/disk/usage.js';
import { isReceiverError } from '../../src/errors.js';
import { manualClock } from '../async/manual-clock.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { bundle, config, configName, file, manifest, member, pax, paxPath, tar, treeOf } from './archives.js';
import { anyCutGivesTheSameTree } from './properties.js';
import { configurationFilename, send, take } from './send.js';
import { defaultOptions } from '../support/options.js';

const { bundleLimits } = defaultOptions;

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

test('A bundle in ESPHome’s format unpacks to its tree, manifest and dot files included', async (t) => {
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
  assert.deepEqual(staged.remoteContent, { buildPath: false, remoteParts: false, webFiles: false });
  assert.equal((await stat(staged.directory)).mode & 0o777, 0o700, 'a bundle holds secrets');
  await staged.discard();
  assert.deepEqual(await readdir(uploadsDir), []);
  await staged.discard();
});

test('Names that are not UTF-8 get their own bytes on the disk, in every way that a header holds them', async (t) => {
  const uploadsDir = await tempDir(t);
  const bytes = (latin1: string): Buffer => Buffer.from(latin1, 'latin1');
  const archive = gzipSync(
    tar(
      manifest(),
      config,
      file(bytes('caf\xe9.h'), 'header'),
      member({ name: bytes('f\xff'), prefix: bytes('folder\xfe') }, 'prefix'),
      paxPath(bytes('pax\xe9/\xff')),
      file('f', 'pax'),
      member({ name: '././@LongLink', type: 'L' }, bytes(`${'\xe9'.repeat(250)}\0`)),
      file('f', 'long'),
      file('\ufffd', 'a real replacement character'),
    ),
  );
  const staged = await take(uploadsDir, archive);
  const contentOf = (latin1: string): string =>
    readFileSync(Buffer.concat([Buffer.from(`${staged.directory}/`), bytes(latin1)]), 'utf8');
  assert.equal(contentOf('caf\xe9.h'), 'header');
  assert.equal(contentOf('folder\xfe/f\xff'), 'prefix');
  assert.equal(contentOf('pax\xe9/\xff'), 'pax');
  assert.equal(contentOf('\xe9'.repeat(250)), 'long');
  assert.equal(contentOf('\xef\xbf\xbd'), 'a real replacement character');
  assert.equal((await measure(staged.directory)).bytes, staged.bytes);
  await staged.discard();
  assert.deepEqual(await readdir(uploadsDir), []);
});

test('Any cut of a bundle into chunks gives the same tree', (t) => anyCutGivesTheSameTree(t, 40));

test('A bundle that arrives byte by byte, with tape padding, is the same as in one piece', async (t) => {
  const uploadsDir = await tempDir(t);
  const body = randomBytes(2_000).toString('latin1');
  const archive = gzipSync(
    tar(manifest(), pax({ path: longName }), file('f', body), config, Buffer.alloc(8_192)),
  );
  const whole = await take(uploadsDir, archive);
  const single = Array.from(archive, (byte) => Buffer.from([byte]));
  const staged = await send(
    openIntake({ uploadsDir, configurationFilename, bundleLimits, clock: systemClock }),
    single,
  );
  const tree = await treeOf(staged.directory);
  assert.deepEqual(tree, await treeOf(whole.directory));
  assert.ok(tree.has(longName));
});

test('An archive of another library can be read too, with its directories and a comment', async (t) => {
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

test('Two files that differ only in case are both unpacked where the disk keeps them apart', async (t) => {
  const staged = await take(await tempDir(t), bundle(file('w/README.md', 'one'), file('w/readme.md', 'two')));
  const tree = await treeOf(staged.directory);
  assert.deepEqual([tree.get('w/README.md'), tree.get('w/readme.md')], ['one', 'two']);
});

test('Members of reserved directories are left out, counted, and change nothing about the content', async (t) => {
  const uploadsDir = await tempDir(t);
  const plain = await take(uploadsDir, bundle(file('gizmo/gizmo.h')));
  const more = [file('.git/HEAD', 'ref'), file('.git/config'), file('.esphome/build/x', 'y'.repeat(999))];
  const staged = await take(uploadsDir, bundle(file('gizmo/gizmo.h'), ...more));
  assert.deepEqual(await treeOf(staged.directory), await treeOf(plain.directory));
  assert.deepEqual(staged.leftOut, [
    { directory: '.git', members: 2 },
    { directory: '.esphome', members: 1 },
  ]);
  assert.deepEqual([staged.contentSha256, staged.bytes], [plain.contentSha256, plain.bytes]);
  await assert.rejects(
    take(uploadsDir, bundle(...more), { bundleLimits: { ...bundleLimits, unpackedBytes: 900 } }),
    (error) => isReceiverError(error, 'BUNDLE') && /more than 900 bytes/.test(error.message),
    'what is left out counts for the limits',
  );
});

test('Unpacking keeps only the execute permission, and no time or special bit', async (t) => {
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

test('A sender that does not wait is asked to wait, and an upload is not held in memory', async (t) => {
  const uploadsDir = await tempDir(t);
  const archive = gzipSync(tar(manifest(), config, file('noise', randomBytes(6 << 20))), { level: 0 });
  const intake = openIntake({ uploadsDir, configurationFilename, bundleLimits, clock: systemClock });
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

type Hint = 'buildPath' | 'remoteParts' | 'webFiles';

const hintCases: readonly (readonly [text: string, remoteContent: readonly Hint[], name?: string])[] = [
  ['sensor:\n  - platform: template\n    name: "${room} light"\n    lambda: return 4.0;\n', []],
  ['esphome:\n  build_path: /home\n', ['buildPath']],
  ['"build\\x5fpath": /home', ['buildPath']],
  ['"build\\\n  _path": /home', ['buildPath']],
  ['esphome:\n  $key: /home', ['buildPath']],
  ['esphome:\n  ${"build" ~ "_path"}: /home', ['buildPath']],
  ['build_path', ['buildPath'], 'included.txt'],
  ['build_path: {github://}\0', [], 'picture.yaml'],
  ['c = "\\x41"; x = { $a: 1 }', [], 'code.h'],
  ['packages:\n  wifi: !include wifi.yaml\n', []],
  ['packages:\n  wifi: github://me/repo/wifi.yaml@main\n', ['remoteParts', 'webFiles']],
  ['packages:\n  wifi:\n    url: git@example.org:me/repo\n', ['remoteParts']],
  ['external_components:\n  - source: my_components\n', ['remoteParts']],
  ['font:\n  - file: fonts/a.ttf\nimage:\n  - file: "pictures/mdi.png"\n', []],
  ['font:\n  - file: "gfonts://Roboto"\n', ['webFiles']],
  ['font:\n  - file:\n      type: gfonts\n      family: Roboto\n', ['webFiles']],
  ['font:\n  - file: https://example.org/a.ttf\n', ['webFiles']],
  ['image:\n  - {file: "http://example.org/a.png", id: a}\n', ['webFiles']],
  ['image:\n  - file: mdi:alert-outline\n', ['webFiles']],
  ["image:\n  - file: 'mdil:bell'\n", ['webFiles']],
  ['image:\n  - file:\n      source: memory\n      icon: bell\n', ['webFiles']],
  ['substitutions: {icon: "mdi:bell"}\nimage:\n  - file: $icon\n', ['webFiles']],
  ['sensor:\n  - icon: mdi:thermometer\n', []],
  ['micro_wake_word:\n  models: [{model: okay_nabu}]\n', ['webFiles']],
  ['esphome:\n  libraries: [ArduinoJson]\n', ['webFiles']],
  ['esphome:\n  platformio_options: {lib_deps: ArduinoJson}\n', ['webFiles']],
  ['esp32:\n  framework: {type: arduino, version: dev}\n', ['webFiles']],
  ['# see https://esphome.io\n  \t# file: mdi:bell\r\n\r\nhost:\r\n', []],
  ['name: a # see https://esphome.io\n', ['webFiles']],
  ['page: http://example.org', ['webFiles'], 'included.txt'],
  ['// see http://example.org', [], 'code.h'],
];

test('Unpacking detects a possible build path, and parts or files that are fetched', async (t) => {
  const uploadsDir = await tempDir(t);
  for (const [text, expected, name = 'more.yaml'] of hintCases) {
    const { remoteContent, discard } = await take(uploadsDir, bundle(file(name, text)));
    const found = (['buildPath', 'remoteParts', 'webFiles'] as const).filter((hint) => remoteContent[hint]);
    assert.deepEqual(found, expected, text);
    await discard();
  }
  const start = 2 * 1_024 + 512; // manifest and configuration with their headers, and its own
  for (let before = 1; before < 10; before += 1) {
    const text = `${'.'.repeat(524_288 - start - before)}build_path${'.'.repeat(9_999)}`;
    const staged = await take(uploadsDir, bundle(file('big.txt', text)));
    assert.equal(
      staged.remoteContent.buildPath,
      true,
      `a word cut after ${before} bytes by the end of a piece`,
    );
  }
});

const archive = bundle(file('noise', randomBytes(300_000)));

test('An abort at any moment removes everything, and nothing throws afterwards', async (t) => {
  const uploadsDir = await tempDir(t);
  for (let step = 0; step < 24; step += 1) {
    const intake = openIntake({ uploadsDir, configurationFilename, bundleLimits, clock: systemClock });
    const pieces = [archive.subarray(0, 100_000), archive.subarray(100_000)];
    for (const piece of pieces.slice(0, step % 3)) intake.write(piece);
    const finished = step >= 12 ? Promise.allSettled([intake.finish()]) : null;
    for (let turns = 0; turns < step % 6; turns += 1) await turn();
    await Promise.all([intake.abort(), intake.abort()]);
    const [result] = (await finished) ?? [];
    // A small bundle can be complete before the abort; then it belongs to the caller.
    if (result?.status === 'fulfilled') await result.value.discard();
    else if (result) assert.ok(isReceiverError(result.reason, 'CANCELLED'));
    assert.deepEqual(await readdir(uploadsDir), []);
    assert.equal(intake.write(archive), true, 'further bytes are dropped');
    await intake.drain();
    await intake.abort();
    if (finished === null) await assert.rejects(intake.finish(), { code: 'CANCELLED' });
  }
});

test('An upload that takes too long is refused with BUNDLE, and leaves nothing', async (t) => {
  const uploadsDir = await tempDir(t);
  const clock = manualClock();
  const inTime = {
    uploadsDir,
    configurationFilename,
    clock,
    bundleLimits: { ...bundleLimits, uploadTimeoutMs: 5_000 },
  };
  const intake = openIntake(inTime);
  intake.write(archive.subarray(0, 200_000));
  clock.advance(4_999);
  await intake.drain();
  assert.equal(intake.write(archive.subarray(200_000, 200_001)), false, 'it is still read');
  clock.advance(1);
  await intake.drain();
  await waitFor(async () => (await readdir(uploadsDir)).length === 0, { what: 'an empty staging area' });
  intake.write(archive.subarray(200_001));
  await assert.rejects(intake.finish(), { code: 'BUNDLE', message: 'the upload took over 5 seconds' });
  await intake.abort();

  const quick = openIntake(inTime);
  const staged = await send(quick, [archive]);
  const given = openIntake(inTime);
  await given.abort();
  assert.equal(clock.waiting, 0, 'no timer is left');
  clock.advance(60_000);
  assert.equal((await treeOf(staged.directory)).size, 3);
});

test('A finished bundle belongs to its caller: abort does not remove it', async (t) => {
  const uploadsDir = await tempDir(t);
  const intake = openIntake({ uploadsDir, configurationFilename, bundleLimits, clock: systemClock });
  const staged = await send(intake, [archive]);
  await intake.abort();
  assert.equal((await treeOf(staged.directory)).size, 3);
});

test('A waiting sender continues when the bundle is refused', async (t) => {
  const intake = openIntake({
    uploadsDir: await tempDir(t),
    configurationFilename,
    bundleLimits,
    clock: systemClock,
  });
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

test('A disk error is reported as such, and not as a fault of the bundle', async (t) => {
  const root = await tempDir(t);
  await writeFile(join(root, 'file'), '');
  await assert.rejects(take(join(root, 'file', 'uploads'), archive), { code: 'ENOTDIR' });
});
