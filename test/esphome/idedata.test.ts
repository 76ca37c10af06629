import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import fc from 'fast-check';

import { isReceiverError } from '../../src/errors.js';
import { loadIdedata, type Idedata } from '../../src/esphome/idedata.js';
import { tempDir } from '../support/temp-dir.js';

test("PlatformIO's idedata lists the images, the native one has none, and both are kept to the byte", async (t) => {
  const path = join(await tempDir(t), 'kitchen.json');
  const load = async (value: unknown): Promise<Idedata> => {
    await writeFile(path, JSON.stringify(value));
    const idedata = await loadIdedata(path);
    assert.equal(idedata.raw.toString(), JSON.stringify(value));
    return idedata;
  };
  const common = { cc_path: '/t/gcc', prog_path: '/d/firmware.elf', defines: ['A=1'] };
  const images = [
    { offset: '0x1000', path: '/d/bootloader.bin' },
    { offset: '0x8000', path: '/d/partitions.bin' },
  ];
  const platformio = await load({
    ...common,
    extra: { flash_images: [...images, { offset: 4096 }, null, 'x'] },
  });
  assert.deepEqual(platformio.flashImages, images);
  assert.deepEqual([platformio.ccPath, platformio.progPath], ['/t/gcc', '/d/firmware.elf']);
  const native = await load({ ...common, includes: { build: [], toolchain: [] } });
  assert.deepEqual(native.flashImages, []);
});

test('Missing and damaged idedata are told apart, and any JSON gives one or the other', async (t) => {
  const root = await tempDir(t);
  await assert.rejects(loadIdedata(join(root, 'gone.json')), (error) => {
    assert.ok(isReceiverError(error, 'STORAGE'));
    assert.equal(error.message, 'the idedata of the build is missing');
    return error.facts.fault === 'missing';
  });
  const path = join(root, 'kitchen.json');
  const extra = fc.record({ extra: fc.oneof(fc.jsonValue(), fc.record({ flash_images: fc.jsonValue() })) });
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(
        fc.json(),
        extra.map((value) => JSON.stringify(value)),
      ),
      async (text) => {
        await writeFile(path, text);
        const isObject = text.startsWith('{');
        const ended = await loadIdedata(path).then(
          ({ flashImages }) => flashImages.every(({ offset }) => typeof offset === 'string'),
          (error: unknown) =>
            isReceiverError(error, 'STORAGE') && error.facts.fault === 'damaged' && !isObject,
        );
        assert.ok(ended, text);
      },
    ),
    { numRuns: 60 },
  );
});
