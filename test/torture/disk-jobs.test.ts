/** Jobs on a disk of which each call fails in turn, with every error, once or from then on. */
import { test } from 'node:test';

import { accepting, ending, loading, tidying } from '../jobs/disk-attempts.js';
import { everyFailure } from '../support/failing-disk.js';

for (const attempt of [accepting, ending, loading, tidying])
  test(`Whichever call fails, and however: ${attempt.name}`, async (t) => {
    t.diagnostic(`${await everyFailure(() => attempt(t))} failures`);
  });
