/** When results are reused, and above all when not, on real files. */
import assert from 'node:assert/strict';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';

import { standInEsphome } from '../../src/testing/index.js';
import { type JobSteps, assertSucceeded, hashOf, host, site, type Site } from './site.js';

test('The same bundle again gets the result of the preceding build at once, as separate files', async (t) => {
  const here = await site(t);
  const first = await here.build(host('kitchen'));
  const config = await stat(here.paths.layout.configTree(first));
  const bytes = await buffer((await here.jobs.openArtifacts(first.id)).read());
  const second = await here.build(host('kitchen'), { peerJobId: 'job-2' });
  assertSucceeded(second);
  assert.deepEqual([first.cached, second.cached], [false, true]);
  assert.deepEqual(second.artifacts, first.artifacts);
  assert.deepEqual([second.progress, second.esphomeVersion], [first.progress, '2026.10.0']);
  assert.equal(
    await here.jobs.readLog(second.id),
    `The same bundle was built by job ${first.id}; reusing its result.\n`,
  );
  const { ino, mtimeMs } = await stat(here.paths.layout.configTree(first));
  assert.deepEqual([ino, mtimeMs], [config.ino, config.mtimeMs], 'the directory is not touched');

  await here.jobs.remove(first.id);
  const third = await here.build(host('kitchen'), { peerJobId: 'job-3' });
  assert.equal(third.cached, true, 'from a job that was cached itself');
  await here.jobs.remove(third.id);
  assert.deepEqual(await buffer((await here.jobs.openArtifacts(second.id)).read()), bytes);
  assert.deepEqual(await readdir(here.paths.layout.uploadsDir), []);
});

type Again = readonly [
  what: string,
  cached: boolean,
  text: string,
  facts?: Parameters<Site['build']>[1],
  runner?: Partial<JobSteps>,
];

const plain = host('kitchen');
const otherVersion: Partial<JobSteps> = {
  chooseEsphome: async () => ({
    ...{ command: standInEsphome, version: '2026.11.0' },
    ...{ confirm: async () => '2026.11.0', release: async () => {} },
  }),
};

/** Builds one after the other in one place. */
const agains: readonly Again[] = [
  ['the first', false, plain],
  ['the same', true, plain],
  ['the same, packed at another time', true, plain, { bundleSha256: hashOf('another archive') }],
  ['the version by its name', true, plain, { targetVersion: '2026.10.0' }],
  ['after a restart', true, plain, {}, {}],
  ['without a bootloader', false, plain, { skipBootloader: true }],
  ['with it again', false, plain],
  ['another bundle', false, host('kitchen', 'api:\n')],
  ['the first bundle, when another one was built since', false, plain],
  ['another device', false, plain, { name: 'bath.yaml' }],
  ['the first device, which that did not touch', true, plain],
  ['a bundle that fails', false, `# stand-in: exit=1\n${plain}`],
  ['the last good one', false, plain],
  ['a clean', false, plain, { target: 'clean' }],
  ['after the clean', false, plain],
  ['another ESPHome', false, plain, {}, otherVersion],
  ['another environment', false, plain, {}, { composeEnvironment: () => ({ PATH: '/usr/bin:/bin' }) }],
  ['with the switch off', false, plain, {}, { resultCache: false }],
  ['after a build with the switch off', false, plain, {}, {}],
  ['a package from elsewhere', false, host('kitchen', 'packages:\n')],
  ['the same package, which may be another', false, host('kitchen', 'packages:\n')],
  ['a font from elsewhere', false, host('kitchen', 'font:\n')],
  ['the same font, which may be another', false, host('kitchen', 'font:\n')],
];

test('A result is reused only by the next build, and only when all its inputs are the same', async (t) => {
  let here = await site(t);
  for (const [index, [what, cached, text, facts, runner]] of agains.entries()) {
    if (runner) {
      await here.jobs.close();
      here = await site(t, here.base, runner);
    }
    const job = await here.build(text, { peerJobId: `job-${index}`, ...facts });
    assert.equal(job.cached, cached, what);
    assert.equal(job.state, what.includes('fails') ? 'failed' : 'completed', what);
  }
});

test('A result missing from the store or from the directory of its device is built again', async (t) => {
  const here = await site(t);
  const first = await here.build(plain);
  await rm(here.paths.resolveStoragePath(first.configuration));
  const second = await here.build(plain, { peerJobId: 'job-2' });
  assert.equal(second.cached, false);
  await rm(join(here.paths.layout.artifactsDir, `${second.id}.tar.gz`));
  const third = await here.build(plain, { peerJobId: 'job-3' });
  assertSucceeded(third);
  assert.equal(third.cached, false);
});
