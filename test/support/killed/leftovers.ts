/** After many killed receivers, one that ends in good order leaves no temporary data of any of them. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { makerOf } from '../../../src/disk/names.js';

/** Throws with the leftovers: staging, locks, temporary files, results without a job, processes. */
export async function assertNothingLeft(configDir: string): Promise<void> {
  const receiverDir = join(configDir, '.esphome/.remote_builds/.receiver');
  const list = (...names: string[]): Promise<string[]> => readdir(join(receiverDir, ...names));
  assert.deepEqual(await list('uploads'), [], 'no staging');
  assert.deepEqual(await list('trash'), [], 'no trash');
  const everything = await readdir(configDir, { recursive: true });
  assert.deepEqual(
    everything.filter((name) => makerOf(name) !== null || /\.(tmp|damaged)$/.test(name)),
    [],
    'no temporary file, and no record set aside',
  );
  const locks = everything.filter((name) => /\/locks\/.+\/(lock|lock\.guard|turn-.*|owner-.*)$/.test(name));
  assert.deepEqual(locks, [], 'no lock');
  const ids = (await list('jobs')).map((name) => name.slice(0, 36));
  for (const name of await list('artifacts'))
    assert.ok(ids.includes(name.slice(0, 36)), `${name} is of a job`);
  assert.deepEqual(await processesBelow(configDir), [], 'no process');
}

/** The command lines of processes that name the directory or build in it. */
export async function processesBelow(directory: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  const found = await Promise.all(
    pids.map(async (pid) => {
      const [command, environment] = await Promise.all(
        ['cmdline', 'environ'].map((name) => readFile(join('/proc', pid, name), 'utf8').catch(() => '')),
      );
      return `${command} ${environment}`.includes(`${directory}/`) ? [`${pid} ${command}`] : [];
    }),
  );
  return found.flat();
}
