/** Stands in for a receiver: starts the command of its arguments, prints the identity as JSON and waits. */
import process from 'node:process';

import { silentLog } from '../../src/log.js';
import { spawnSession } from '../../src/process/session.js';

const [program = '', ...rest] = process.argv.slice(2);
const session = await spawnSession([program, ...rest], {
  cwd: '/',
  env: { PATH: process.env['PATH'] ?? '', TEST_TOKEN: process.env['TEST_TOKEN'] ?? '' },
  log: silentLog,
  onOutput: (chunk) => {
    process.stdout.write(`${JSON.stringify(session.identity)}\n${chunk.toString()}`);
  },
});
await session.settled();
