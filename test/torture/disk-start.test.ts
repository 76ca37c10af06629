/**
 * Every call of the file system that a start makes fails once, and all from it on, in each of five ways: the start succeeds
 * or throws an error with a code, leaves nothing running, loses neither key nor peer, and the next one succeeds.
 */
import assert from 'node:assert/strict';
import { cp, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { systemCode, isReceiverError } from '../../src/errors.js';
import { createReceiver, type Receiver } from '../../src/index.js';
import { standInEsphome } from '../../src/testing/index.js';
import { everyFailure, failures } from '../support/failing-disk.js';
import { tempDir } from '../support/temp-dir.js';
import { pairedClient, startReceiver, yaml } from '../support/whole.js';

/** A directory with a key, a peer, a build and a job. */
async function used(t: TestContext): Promise<{ base: string; pin: string }> {
  const base = await tempDir(t);
  const configDir = join(base, 'config');
  await mkdir(configDir);
  const whole = await startReceiver(t, { configDir });
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const bundle = await client.bundle('kitchen.yaml', yaml('kitchen'));
  assert.equal((await session.build({ file: 'kitchen.yaml', bundle })).status, 'completed');
  await session.close();
  const { pin } = whole.receiver;
  await whole.receiver.close();
  return { base: configDir, pin };
}

test('Whichever file system call of a start fails, nothing is lost and the next start succeeds', async (t) => {
  const template = await used(t);
  const root = await tempDir(t);
  let count = 0;
  for (const code of failures) {
    const tried = await everyFailure(
      async () => {
        const configDir = join(root, String((count += 1)));
        await cp(template.base, configDir, { recursive: true });
        const options = { configDir, esphome: standInEsphome, provisionVersions: false };
        return {
          directory: configDir,
          act: () => createReceiver(options),
          async check(outcome: { error: unknown } | { result: Receiver }, at: string) {
            if ('result' in outcome) await outcome.result.close();
            else {
              const isTyped = isReceiverError(outcome.error) || systemCode(outcome.error) !== undefined;
              assert.ok(isTyped, `${at}: ${String(outcome.error)}`);
            }
            const next = await createReceiver(options);
            assert.equal(next.pin, template.pin, at);
            assert.equal(next.peers.list().length, 1, at);
            assert.equal(next.jobs.list()[0]?.state, 'completed', at);
            await next.close();
            assert.ok((await readFile(join(configDir, '.esphome-receiver', 'peers.json'))).length > 0, at);
          },
        };
      },
      { codes: [code] },
    );
    t.diagnostic(`${code}: ${tried} failures`);
    assert.ok(tried > 20, `${tried} failures`);
  }
});
