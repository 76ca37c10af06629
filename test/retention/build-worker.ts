/** Builds devices in a loop, each under its lease, and checks after each build that all its files exist. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { setTimeout as pause } from 'node:timers/promises';

import { messageOf } from '../../src/errors.js';
import type { RemoteKey } from '../../src/paths/index.js';
import { keys, pathsIn, realLeases } from './kill-place.js';

export interface BuildsReport {
  readonly builds: number;
  /** Files that builds lost, and errors that stopped a build. */
  readonly losses: readonly string[];
}

const [base = ''] = process.argv.slice(2);
const { layout } = pathsIn(base);
const underLease = realLeases(layout.locksDir);
const filesOfBuild = 30;
const lanes = 2;
const losses: string[] = [];
let builds = 0;
const end = new AbortController();

async function build(key: RemoteKey): Promise<void> {
  const names = Array.from({ length: filesOfBuild }, (_, n) => `build/part-${n % 5}/file-${n}`);
  await underLease(key, 'a build', async () => {
    const subtree = layout.subtree(key);
    const text = `build ${builds}`;
    const all = ['config/device.yaml', 'storage/device.json', ...names];
    for (const name of all) {
      await mkdir(join(subtree, name, '..'), { recursive: true });
      await writeFile(join(subtree, name), text);
    }
    await pause(Math.random() * 200);
    for (const name of all) {
      const found = await readFile(join(subtree, name), 'utf8').catch(messageOf);
      if (found !== text) losses.push(`${name}: ${found}`);
    }
    builds += 1;
  });
}

async function lane(): Promise<void> {
  while (!end.signal.aborted) {
    const key = keys[Math.floor(Math.random() * keys.length)] as RemoteKey;
    await build(key).catch((error: unknown) => losses.push(messageOf(error)));
  }
}

const working = Promise.all(Array.from({ length: lanes }, lane));
process.send?.('ready');
process.on('message', () => {
  end.abort();
  const report = (): void =>
    void process.send?.({ builds, losses } satisfies BuildsReport, () => process.disconnect());
  void working.then(report);
});
