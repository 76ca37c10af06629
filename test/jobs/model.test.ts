/** The life of jobs as a whole, through restarts, in a few of its interleavings; `npm run fuzz` tries many more. */
import { test } from 'node:test';

import { tempDir } from '../support/temp-dir.js';
import { anyInterleaving } from './interleavings.js';

test('In any interleaving, through any restart, each job ends once, no two builds meet, and nothing is left', async (t) => {
  await anyInterleaving(await tempDir(t), 60);
});
