/**
 * Jobs on a disk that refuses. Here one call fails with EIO, which any call can, or all from one on with ENOSPC; the
 * torture does it with every error.
 */
import assert from 'node:assert/strict';
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { everyFailure } from '../support/failing-disk.js';
import { accepting, assertReadable, ending, held, loading, recordOf, tidying } from './disk-attempts.js';
import { exampleRequest } from './examples.js';
import { host, stage } from './site.js';

test('A receiver whose directories are removed makes them again for the next job', async (t) => {
  const { here, reached, letGo } = await held(t);
  const { layout } = here.paths;
  const running = await here.submit(host('kitchen'));
  await reached;
  await rm(layout.receiverDir, { recursive: true });
  const next = await here.submit(host('bath'), { name: 'bath.yaml', peerJobId: 'job-2' });
  const ended = [here.ended(running), here.ended(next)];
  letGo();
  for (const job of await Promise.all(ended)) {
    assertReadable(job, job.file);
    assert.equal((await recordOf(layout, job.id))?.state, job.state);
  }
  assert.equal(here.jobs.get(next)?.state, 'completed');
  assert.ok((await stat(join(layout.artifactsDir, `${next}.tar.gz`))).size > 0);
});

test('A bundle that a person removed fails its job with that reason, and the job can be sent again', async (t) => {
  const { here, letGo } = await held(t);
  const { uploadsDir } = here.paths.layout;
  letGo();
  const request = exampleRequest();
  const bundle = await stage(uploadsDir, request.file, host('kitchen'));
  await rm(bundle.directory, { recursive: true });
  const { id } = here.jobs.submit(request, Promise.resolve(bundle));
  const { errorMessage } = await here.ended(id);
  assert.equal(
    errorMessage,
    'the uploaded bundle of this job is no longer on the build server; send the job again',
  );
  assert.equal(here.jobs.find(request.dashboardId, request.peerJobId), undefined);
  assert.equal((await here.build(host('kitchen'))).state, 'completed');
});

test('Whichever call fails while a job is accepted: it is recorded, or refused with nothing left', async (t) => {
  await everyFailure(() => accepting(t), { codes: ['EIO'], lasting: [false] });
  await everyFailure(() => accepting(t), { codes: ['ENOSPC'], lasting: [true] });
});

test('Whichever call fails while a build ends: it ends once, frees slot and lock, and is recorded at last', async (t) => {
  await everyFailure(() => ending(t), { codes: ['EIO'], lasting: [false] });
  await everyFailure(() => ending(t), { codes: ['ENOSPC'], lasting: [true] });
});

test('Whichever call fails while jobs are loaded: the next load finds each of them, unchanged', async (t) => {
  await everyFailure(() => loading(t), { codes: ['EIO'], lasting: [false] });
  await everyFailure(() => loading(t), { codes: ['ENOSPC'], lasting: [true] });
});

test('Whichever call fails while a start tidies up: nothing that a job needs is removed', async (t) => {
  await everyFailure(() => tidying(t), { codes: ['EIO'], lasting: [false] });
  await everyFailure(() => tidying(t), { codes: ['ENOSPC'], lasting: [true] });
});
