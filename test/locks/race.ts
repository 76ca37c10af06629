/**
 * The race for a lock that a dead owner has left: in each round all processes find the same stale lock at the
 * same moment, and keep what they get until the round ends.
 */
import { mkdir, rm, utimes } from 'node:fs/promises';
import { join } from 'node:path';

import type { RaceQuestion } from './race-worker.js';
import type { Worker } from './helpers.js';

export interface RaceResult {
  readonly rounds: number;
  readonly withSeveralOwners: number;
  readonly withNoOwner: number;
}

const leadMs = 20;

export async function raceForStaleLocks(
  workers: readonly Worker[],
  directory: string,
  { rounds, bare }: { readonly rounds: number; readonly bare: boolean },
): Promise<RaceResult> {
  const lock = join(directory, 'lock');
  const all = <T>(question: RaceQuestion): Promise<T[]> =>
    Promise.all(workers.map((worker) => worker.ask<T>(question)));
  let withSeveralOwners = 0;
  let withNoOwner = 0;
  for (let round = 0; round < rounds; round += 1) {
    await rm(lock, { recursive: true, force: true });
    await mkdir(lock);
    const longAgo = new Date(Date.now() - 60_000);
    await utimes(lock, longAgo, longAgo);
    const won = await all<boolean>({ do: 'race', directory, at: Date.now() + leadMs, bare });
    const owners = won.filter(Boolean).length;
    if (owners > 1) withSeveralOwners += 1;
    if (owners === 0) withNoOwner += 1;
    await all({ do: 'release' });
  }
  return { rounds, withSeveralOwners, withNoOwner };
}
