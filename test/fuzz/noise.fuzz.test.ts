import { test } from 'node:test';

import { allAgree } from '../protocol/noise-properties.js';

/** A run is a conversation of six sides; the default is 5,000. */
const runs = Math.ceil(Number(process.env['FUZZ_RUNS'] ?? 250_000) / 50);

test(`noise: three implementations agree about whatever is said and changed, ${runs} conversations`, async (t) => {
  t.diagnostic(JSON.stringify(await allAgree(runs)));
});
