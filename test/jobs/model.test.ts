/** The whole lifecycle of jobs, through restarts, in a few interleavings; `npm run fuzz` tries many more. */
import { test } from 'node:test';

import { tempDir } from '../support/temp-dir.js';
import { anyInterleaving } from './interleavings.js';

test('In any interleaving, through any restart, each job ends once, no two builds overlap, and nothing is left over', async (t) => {
  await anyInterleaving(await tempDir(t), 60);
});
