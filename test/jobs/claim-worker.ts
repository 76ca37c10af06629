/** Opens a store, waits for the file `go` in its directory, loads, and prints the ids of the live jobs that it got. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { openDiskStore } from '../../src/jobs/disk-store.js';
import { isTerminal } from '../../src/jobs/record.js';
import { silentLog } from '../../src/log.js';
import { waitFor } from '../support/wait-for.js';

const [dir = ''] = process.argv.slice(2);
const store = await openDiskStore({ dir, presenceDir: join(dir, 'receivers'), watchMs: 50, log: silentLog });
console.log('ready');
await waitFor(() => existsSync(join(dir, 'go')), { deadlineMs: 20_000 });
const live = (await store.load()).filter((record) => !isTerminal(record));
console.log(['taken', ...live.map(({ id }) => id)].join(' '));
// Alive until all have looked: a dead owner's jobs may be taken.
setTimeout(() => {}, 60_000);
