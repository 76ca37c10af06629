/** What an operator of a complete receiver with the stand-in compiler sees and does. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { markReady, placeOf, stampUse } from '../../src/provision/venv-place.js';
import { createPaths } from '../../src/paths/index.js';
import { tempDir } from '../support/temp-dir.js';
import { pairedClient, startReceiver } from '../support/whole.js';

const text = '# stand-in: tools\nesphome:\n  name: kitchen\nesp32:\n  board: x\n';

test('An operator sees shared tools, even after a restart, and resets them by name', async (t) => {
  const configDir = join(await tempDir(t), 'config');
  const { venvsDir, locksDir, toolchainsDir } = createPaths({ configDir }).layout;
  const place = placeOf({ venvsDir, locksDir, name: 'esphome-2026.9.1' });
  await mkdir(join(place.directory, 'venv-1'), { recursive: true });
  await writeFile(join(place.directory, 'venv-1', 'esphome'), Buffer.alloc(50_000, 1));
  await markReady(place, join(place.directory, 'venv-1'));
  await stampUse(place);

  const whole = await startReceiver(t, { configDir });
  const { retention } = whole.receiver;
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const result = await session.build({
    file: 'kitchen.yaml',
    bundle: await client.bundle('kitchen.yaml', text),
  });
  assert.equal(result.status, 'completed');
  await retention.sweep();
  const { tools, toolEntries } = await retention.usage();
  const items = [
    { kind: 'version', version: '2026.9.1' },
    { kind: 'toolchain', toolchain: 'esp-idf' },
    { kind: 'toolchain', toolchain: 'home' },
  ];
  assert.deepEqual(
    toolEntries.map(({ item }) => item),
    items,
  );
  assert.ok(tools > 50_000 && toolEntries.every(({ bytes }) => bytes > 0));
  await whole.receiver.close();

  const again = await startReceiver(t, { configDir });
  const after = again.receiver.retention;
  assert.equal((await after.usage()).tools, tools);
  for (const [target, path, item] of [
    [{ toolchain: 'esp-idf' }, join(toolchainsDir, 'idf'), items[1]],
    [{ version: '2026.9.1' }, place.directory, items[0]],
  ] as const) {
    const dry = await after.reset(target, { dryRun: true });
    assert.ok(existsSync(path));
    const wet = await after.reset(target);
    assert.ok(!existsSync(path));
    assert.deepEqual(wet.removed, dry.removed);
    assert.deepEqual(
      wet.removed.map((removed) => removed.item),
      [item],
    );
    await assert.rejects(after.reset(target), { code: 'NOT_FOUND' });
  }
  const { toolEntries: left } = await after.usage();
  assert.deepEqual(
    left.map(({ item }) => item),
    items.slice(2),
  );
});
