/**
 * Stages a tree and swaps it in, as a receiver does, and kills itself just before the given step of the swap
 * that changes the disk; then it prints nothing. Arguments: the builds directory, the tree's file, the step (from 0).
 */
import promises from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import process from 'node:process';

import { stagedBundle, type StagedFacts } from '../../src/bundles/store.js';
import { installBundle } from '../../src/bundles/install.js';
import { createPaths, dashboardId, deviceFromFile } from '../../src/paths/index.js';

const [buildsDir = '', name = '', fatal = ''] = process.argv.slice(2);
const { layout } = createPaths({ configDir: '/', buildsDir });
const key = { dashboardId: dashboardId('dashboard-1'), device: deviceFromFile('kitchen.yaml') };
const directory = join(layout.uploadsDir, 'the-job');
await promises.mkdir(directory, { recursive: true });
for (const file of ['kitchen.yaml', name]) await promises.writeFile(join(directory, file), 'x');

const steps: string[] = [];
for (const step of ['mkdir', 'writeFile', 'rename', 'open', 'rm', 'rmdir'] as const) {
  const real = promises[step] as (...args: unknown[]) => Promise<never>;
  promises[step] = (...args: unknown[]) => {
    if (steps.length === Number(fatal)) process.kill(process.pid, 'SIGKILL');
    steps.push(step);
    return real(...args);
  };
}
syncBuiltinESMExports();

const staged = stagedBundle({ directory, manifest: {} } as StagedFacts);
await installBundle(staged, { layout, key });
await staged.discard();
console.log(steps.join(' '));
