/** A hundred thousand files in one tree that go: the longest block, and what another build feels of it. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { removeTree } from '../../src/disk/remove.js';
import type { Cleanups } from '../../test/support/temp-dir.js';
import { median, type Row } from '../transfer/table.js';
import { delaysOf, idleDelays } from './loop-delay.js';
import { blockRow } from './many-devices.js';

const files = 100_000;
const rounds = 3;

export async function measureLargeTree(t: Cleanups, base: string): Promise<Row[]> {
  const program = fileURLToPath(new URL('build-process.ts', import.meta.url));
  const build = fork(program, [join(base, 'build')], { execArgv: ['--import', 'tsx'] });
  t.after(() => void build.kill('SIGKILL'));
  await once(build, 'message');
  /** Objects that the other process has built since it was asked last. */
  async function built(): Promise<number> {
    const answer = once(build, 'message');
    build.send('how many');
    return ((await answer) as [number])[0];
  }
  const ratios: number[] = [];
  const took: number[] = [];
  let longest = { tookMs: 0, longestMs: 0, mostMs: 0 };
  for (let round = 0; round < rounds; round += 1) {
    const tree = join(base, `tree-${round}`);
    await plant(tree);
    await built();
    const removal = await delaysOf(() => removeTree(tree));
    const during = await built();
    // As long a time without it, right after.
    await pause(removal.tookMs);
    ratios.push(during / (await built()));
    took.push(removal.tookMs);
    if (removal.longestMs > longest.longestMs) longest = removal;
  }
  build.kill('SIGKILL');
  const idle = await idleDelays(3_000);
  return [
    { what: '100,000 files in one tree: removed', ours: median(took), unit: 'ms', limit: { atMost: 60_000 } },
    blockRow('100,000 files in one tree: longest block', longest, idle),
    {
      what: 'a build during the sweep, against without',
      ours: median(ratios),
      ratio: median(ratios),
      ...{ unit: 'x', limit: { atLeast: 0.9 }, isRatio: true },
    },
  ];
}

/** Half of them in one directory. */
async function plant(tree: string): Promise<void> {
  for (let n = 0; n < files; n += 1) {
    const directory = n % 2 ? join(tree, 'flat') : join(tree, `part-${n % 500}`);
    if (n < 1_000) await mkdir(directory, { recursive: true });
    await writeFile(join(directory, `file-${n}`), '');
  }
}
