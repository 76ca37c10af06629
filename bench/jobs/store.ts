/** Ten thousand jobs that wait: what they take while the process lives, and how long the next one needs to start. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { mebibyte } from '../transfer/inputs.js';
import type { Row } from '../transfer/table.js';
import type { StoreFigures } from './store-process.js';

const jobs = 10_000;

export async function measureStore(base: string): Promise<Row[]> {
  const directory = join(base, 'store');
  await mkdir(directory);
  const filled = await run('fill', directory);
  const opened = await run('open', directory);
  return [
    {
      what: '10,000 jobs that wait: memory',
      ours: filled.bytes / mebibyte,
      ...{ unit: 'MiB', limit: { atMost: 256 } },
    },
    {
      what: '10,000 jobs that wait: submit, each',
      ours: filled.ms / jobs,
      ...{ unit: 'ms', limit: { atMost: 5 } },
    },
    {
      what: '10,000 jobs that waited: start',
      ours: opened.ms,
      ...{ unit: 'ms', limit: { atMost: 3_000 } },
    },
  ];
}

async function run(step: 'fill' | 'open', directory: string): Promise<StoreFigures> {
  const program = fileURLToPath(new URL('store-process.ts', import.meta.url));
  const child = fork(program, [step, directory, String(jobs)], {
    execArgv: [...process.execArgv, '--expose-gc'],
  });
  const [figures] = (await once(child, 'message')) as [StoreFigures];
  await once(child, 'exit');
  return figures;
}
