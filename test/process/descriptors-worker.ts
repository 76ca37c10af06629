/** Starts a session with 0, 1, 2 … free descriptors, and prints how each start ended. */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import process from 'node:process';

import { isReceiverError } from '../../src/errors.js';
import { silentLog as log } from '../../src/log.js';
import { spawnSession } from '../../src/process/session.js';

const mostFree = 14;

async function attempt(free: number): Promise<string> {
  const open: number[] = [];
  try {
    for (;;) open.push(openSync('/dev/null', 'r'));
  } catch {
    for (let n = 0; n < free; n += 1) closeSync(open.pop() as number);
  }
  try {
    const session = await spawnSession(['/bin/true'], { cwd: '/', env: {}, onOutput() {}, log });
    // What follows needs descriptors again.
    for (const each of open.splice(0)) closeSync(each);
    return String((await session.exited).code);
  } catch (error) {
    return isReceiverError(error) ? error.code : `untyped ${String(error)}`;
  } finally {
    for (const each of open) closeSync(each);
  }
}

await import('execa');
execFileSync('prlimit', ['--pid', String(process.pid), '--nofile=128:']);
const ends: string[] = [];
for (let free = 0; free <= mostFree; free += 1) ends.push(await attempt(free));
process.stdout.write(JSON.stringify(ends));
