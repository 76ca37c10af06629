/**
 * Rounds in which a receiver is killed while four dashboards build six devices: a random time after a chosen
 * moment. Between the rounds, acknowledged jobs must be on disk; after the last one, everything must succeed
 * and leave no temporary data.
 */
import assert from 'node:assert/strict';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { startChild, type Child } from '../child.js';
import { tempDir, type Cleanups } from '../temp-dir.js';
import { waitFor } from '../wait-for.js';
import type { Chance } from './chance.js';
import { assertOnRecord, recordsIn } from './ledger.js';
import { assertNothingLeft } from './leftovers.js';
import { createPeer, type Moment, type Peer } from './peer.js';

const program = fileURLToPath(new URL('../receiver-program.js', import.meta.url));
const lockStaleMs = '2000';
const slots = '2';
const peerCount = 4;
const devices = ['alpha', 'beta', 'gamma', 'delta', 'epsilon', 'zeta'];
/** The longest delay of a kill after its moment, in ms, and the longest wait for the moment. */
const spreadMs: Readonly<Record<Moment, number>> = { submit: 60, compile: 300, pack: 60, download: 30 };
const momentDeadlineMs = 4_000;
const mostUnended = 3;

export interface Report {
  readonly jobs: number;
  readonly ends: Readonly<Record<string, number>>;
  /** Kills by their intended moment; `other` if it did not occur. */
  readonly kills: Readonly<Record<string, number>>;
  /** Jobs on disk in this state at a kill. */
  readonly found: Readonly<Record<string, number>>;
}

/** Throws at the first violation. `built`: the directory of the built package, which starts faster. */
export async function surviveKills(
  t: Cleanups,
  chance: Chance,
  rounds: number,
  built?: string,
): Promise<Report> {
  const base = await tempDir(t);
  const configDir = join(base, 'config');
  const receiverDir = join(configDir, '.esphome/.remote_builds/.receiver');
  await mkdir(configDir);
  const [kills, found, ends] = [count(), count(), count()];
  const watchers = new Set<(moment: Moment) => void>();
  const onMoment = (moment: Moment): void => watchers.forEach((watch) => watch(moment));
  const peers = await Promise.all(
    Array.from({ length: peerCount }, (_, n) => createPeer(join(base, `peer-${n}`), chance, onMoment)),
  );
  const jobs = (): Peer['jobs'] => peers.flatMap((peer) => peer.jobs);

  /** Resolves to true at the moment, or to false if it does not occur. */
  function momentOf(wanted: Moment): Promise<boolean> {
    return new Promise((resolve) => {
      const stop = (hasCome: boolean): void => {
        clearTimeout(timer);
        watchers.delete(watch);
        resolve(hasCome);
      };
      const watch = (moment: Moment): void => {
        if (moment === wanted) stop(true);
      };
      const timer = setTimeout(() => stop(false), momentDeadlineMs);
      watchers.add(watch);
    });
  }

  async function round(): Promise<void> {
    const server = await start(t, configDir, built);
    const wanted = chance.oneOf(Object.keys(spreadMs) as Moment[]) as Moment;
    const coming = momentOf(wanted);
    await Promise.all(peers.map((peer) => peer.connect(server)));
    for (const peer of peers) {
      const unended = peer.jobs.filter(({ end }) => end === null).length;
      if (unended < mostUnended) await peer.submit(chance.oneOf(devices) ?? '');
      if (chance.below(4) === 0) peer.cancelOne();
    }
    const hasCome = await coming;
    await pause(chance.below(spreadMs[wanted]));
    server.child.signal('SIGKILL');
    assert.equal(await server.child.ended, 'SIGKILL', server.child.output());
    kills.add(hasCome ? wanted : 'other');
    await Promise.all(peers.map((peer) => peer.settled()));
    const records = await recordsIn(receiverDir, await readdir(join(receiverDir, 'jobs')));
    for (const { state } of records) found.add(state);
    assertOnRecord(jobs(), records);
  }

  async function finish(): Promise<void> {
    const server = await start(t, configDir, built);
    await Promise.all(peers.map((peer) => peer.connect(server)));
    await waitFor(() => jobs().every(({ end }) => end !== null), { deadlineMs: 60_000, what: 'all ends' });
    await Promise.all(peers.map((peer) => peer.settled()));
    for (const { id, end, isFetched } of jobs()) assert.ok(end !== 'completed' || isFetched, id);
    await Promise.all(peers.map((peer) => peer.close()));
    assert.equal(await server.child.stop(), 0, server.child.output());
    await assertNothingLeft(configDir);
  }

  for (let n = 0; n < rounds; n += 1) await round();
  await finish();
  for (const { end } of jobs()) ends.add(end ?? 'none');
  return { jobs: jobs().length, ends: ends.counts, kills: kills.counts, found: found.counts };
}

interface Server {
  readonly child: Child;
  readonly port: number;
  readonly pin: string;
}

async function start(t: Cleanups, configDir: string, built: string | undefined): Promise<Server> {
  const words = [program, configDir, lockStaleMs, slots];
  const child = await startChild(t, [
    process.execPath,
    ...(built === undefined ? ['--import', 'tsx', ...words] : [...words, built]),
  ]);
  const [line] = await child.printed(/^\{"port".*$/m, { deadlineMs: 30_000 });
  return { child, ...(JSON.parse(line) as { port: number; pin: string }) };
}

function count(): { readonly counts: Record<string, number>; add(name: string): void } {
  const counts: Record<string, number> = {};
  return { counts, add: (name) => void (counts[name] = (counts[name] ?? 0) + 1) };
}
