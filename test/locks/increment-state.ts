/** The state that the increment workers share, and the log of successes that each keeps for itself. */
import { appendFileSync, readFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { systemCode } from '../../src/errors.js';

export interface IncrementTask {
  readonly id: number;
  readonly locksDir: string;
  readonly stateDir: string;
  readonly count: number;
}

/** By worker. */
export type Counts = Readonly<Record<number, number>>;

/**
 * The state of the newest owner that has published. A reader that stands still between look and reading finds its
 * file removed by later owners, and looks again.
 */
export async function readState(stateDir: string): Promise<Counts> {
  for (;;) {
    const names = await readdir(stateDir);
    const newest = Math.max(0, ...names.flatMap((name) => Number(/^state-(\d+)$/.exec(name)?.[1] ?? [])));
    if (newest === 0) return {};
    try {
      return JSON.parse(await readFile(join(stateDir, `state-${newest}`), 'utf8')) as Counts;
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw error;
    }
  }
}

export function noteSuccess(stateDir: string, id: number): void {
  appendFileSync(logOf(stateDir, id), '.');
}

export function successesOf(stateDir: string, id: number): number {
  try {
    return readFileSync(logOf(stateDir, id), 'utf8').length;
  } catch {
    return 0;
  }
}

function logOf(stateDir: string, id: number): string {
  return join(stateDir, `log-${id}`);
}
