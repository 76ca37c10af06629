/**
 * What slots can be worth on this machine: ESPHome without a receiver, in lanes beside each other that divide the
 * processors among themselves as slots do.
 */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { compilersPerBuild, machineOf } from '../../src/process/machine.js';

const maxBuffer = 2 ** 26;

interface Configuration {
  readonly name: string;
  readonly text: string;
}

/** Milliseconds until all are compiled, each in a data directory of its own. */
export async function compileBare(
  esphome: string,
  configurations: readonly Configuration[],
  lanes: number,
): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'bench-slots-'));
  const compilers = compilersPerBuild(lanes, machineOf());
  const environment = {
    ...{ PATH: process.env['PATH'], HOME: directory, ESPHOME_CCACHE_ENABLE: '0' },
    ...(compilers !== null && { ESPHOME_DEFAULT_COMPILE_PROCESS_LIMIT: String(compilers) }),
  };
  const rest = configurations.values();
  async function lane(): Promise<void> {
    for (const { name, text } of rest) {
      const place = join(directory, name);
      await mkdir(place);
      await writeFile(join(place, 'device.yaml'), text);
      const env = { ...environment, ESPHOME_DATA_DIR: join(place, 'data') };
      await promisify(execFile)(esphome, ['compile', join(place, 'device.yaml')], { env, maxBuffer });
    }
  }
  try {
    const begin = performance.now();
    await Promise.all(Array.from({ length: lanes }, lane));
    return performance.now() - begin;
  } finally {
    await rm(directory, { recursive: true });
  }
}
