import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { mkdir, open, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { test } from 'node:test';

import { writeAtomic } from '../../src/disk/atomic-write.js';
import { everyFailure, failingDisk } from './failing-disk.js';
import { tempDir } from './temp-dir.js';

test('The chosen call fails, whichever form of the function is used', async (t) => {
  const directory = await tempDir(t);
  const disk = failingDisk(directory);
  t.after(() => disk[Symbol.dispose]());
  const code = 'EIO';

  disk.failAt(1, code);
  await assert.rejects(mkdir(join(directory, 'a')), { code });
  disk.failAt(1, code);
  assert.throws(() => fs.mkdirSync(join(directory, 'a')), { code });
  disk.failAt(1, code);
  await assert.rejects(
    new Promise<void>((resolve, reject) =>
      fs.mkdir(join(directory, 'a'), (error) => (error ? reject(error) : resolve())),
    ),
    { code },
  );
  await mkdir(join(directory, 'a'));

  await using handle = await open(join(directory, 'file'), 'w');
  disk.failAt(1, code);
  await assert.rejects(handle.sync(), { code });
  await handle.sync();

  disk.failAt(2, code);
  const stream = fs.createWriteStream(join(directory, 'stream'));
  await assert.rejects(finished(stream.end('text')), { code });
});

test('A full disk refuses only writes, and other directories keep working', async (t) => {
  const directory = await tempDir(t);
  const elsewhere = await tempDir(t);
  const disk = failingDisk(directory);
  t.after(() => disk[Symbol.dispose]());
  disk.failAt(1, 'ENOSPC', true);
  await writeFile(join(elsewhere, 'file'), '');
  assert.ok((await stat(directory)).isDirectory());
  await assert.rejects(mkdir(join(directory, 'a')), { code: 'ENOSPC' });
  await assert.rejects(mkdir(join(directory, 'a')), { code: 'ENOSPC' });
  disk.heal();
  await mkdir(join(directory, 'a'));
});

test('An atomic write that fails at any step leaves the old content and no temporary file', async (t) => {
  const tried = await everyFailure(async () => {
    const directory = await tempDir(t);
    const file = join(directory, 'file');
    await writeFile(file, 'old');
    return {
      directory,
      act: () => writeAtomic(file, 'new'),
      async check(outcome, at) {
        const text = await readFile(file, 'utf8');
        if ('error' in outcome) assert.match(text, /^(old|new)$/, at);
        else assert.equal(text, 'new', at);
        await writeAtomic(file, 'again');
        assert.equal(await readFile(file, 'utf8'), 'again', at);
      },
    };
  });
  assert.ok(tried > 10, `${tried} failures`);
});
