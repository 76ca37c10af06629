/**
 * What a lease costs: taken and given back without a rival, beside the bare library; shared out among eight
 * processes; and a thousand of them held at once. Starts itself as the contending processes.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import lockfile from 'proper-lockfile';

import { acquireLease, type LeaseOptions } from '../src/locks/lease.js';
import { silentLog } from '../src/log.js';
import { defaultTiming } from '../test/support/options.js';

const pairs = 1_000;
const processes = 8;
const contendMs = 8_000;
const holdMs = 10;
const held = 1_000;
const watchMs = 10_000;

/** Limits: what a user would notice. */
const limits = { pairMs: 1.5, leastShare: 0.5, longestWaitMs: 2_000, heartbeatPercent: 10 };

interface Share {
  readonly count: number;
  readonly longestWaitMs: number;
}

const lease = (locksDir: string, device = 'kitchen'): ReturnType<typeof acquireLease> =>
  acquireLease({
    ...{ locksDir, key: { dashboardId: 'dashboard-0001', device } as LeaseOptions['key'] },
    ...{ reason: 'bench', timing: defaultTiming, log: silentLog, onAsked() {} },
  });

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;

/** In turns, so that a busy moment of the machine strikes both. */
async function pairTimes(ways: readonly (() => Promise<void>)[]): Promise<readonly number[]> {
  const times = ways.map((): number[] => []);
  for (let n = 0; n < pairs; n += 1) {
    for (const [index, pair] of ways.entries()) {
      const begun = performance.now();
      await pair();
      times[index]!.push(performance.now() - begun);
    }
  }
  return times.map(median);
}

async function contend(locksDir: string): Promise<Share> {
  const end = performance.now() + contendMs;
  let count = 0;
  let longestWaitMs = 0;
  while (performance.now() < end) {
    const begun = performance.now();
    const mine = await lease(locksDir);
    longestWaitMs = Math.max(longestWaitMs, performance.now() - begun);
    await sleep(holdMs);
    await mine.release();
    count += 1;
  }
  return { count, longestWaitMs };
}

/** All start at the same moment, when the last one is up. */
async function contendingProcesses(locksDir: string): Promise<readonly Share[]> {
  const children = Array.from({ length: processes }, () =>
    fork(fileURLToPath(import.meta.url), [locksDir], { execArgv: ['--import', 'tsx'] }),
  );
  await Promise.all(children.map((child) => once(child, 'message')));
  const shares = children.map((child) => once(child, 'message'));
  for (const child of children) child.send('go');
  return (await Promise.all(shares)).map(([share]) => share as Share);
}

async function heartbeatCost(locksDir: string): Promise<number> {
  const leases = await Promise.all(Array.from({ length: held }, (_, n) => lease(locksDir, `device-${n}`)));
  const before = process.cpuUsage();
  await sleep(watchMs);
  const { user, system } = process.cpuUsage(before);
  await Promise.all(leases.map((each) => each.release()));
  return (user + system) / 10 / watchMs;
}

async function main(root: string): Promise<void> {
  const bareDir = join(root, 'bare');
  mkdirSync(bareDir);
  const options = { lockfilePath: join(bareDir, 'lock'), realpath: false, onCompromised() {} };
  const [bareMs = 0, oursMs = 0] = await pairTimes([
    async () => (await lockfile.lock(bareDir, options))(),
    async () => (await lease(join(root, 'locks'))).release(),
  ]);
  const shares = await contendingProcesses(join(root, 'locks'));
  const counts = shares.map(({ count }) => count).toSorted((a, b) => a - b);
  const total = counts.reduce((a, b) => a + b);
  const leastShare = (counts[0]! * processes) / total;
  const longestWaitMs = Math.max(...shares.map((share) => share.longestWaitMs));
  const heartbeatPercent = await heartbeatCost(join(root, 'locks'));

  const rows = [
    ['acquire and release, bare library, median ms', bareMs.toFixed(2), '-', true],
    [
      'acquire and release, median ms',
      oursMs.toFixed(2),
      `at most ${limits.pairMs}`,
      oursMs <= limits.pairMs,
    ],
    [`${processes} processes, ${holdMs} ms held, each`, counts.join(' '), '-', true],
    [
      'least share of a process, 1 = fair',
      leastShare.toFixed(2),
      `at least ${limits.leastShare}`,
      leastShare >= limits.leastShare,
    ],
    [
      'longest wait, ms',
      longestWaitMs.toFixed(0),
      `at most ${limits.longestWaitMs}`,
      longestWaitMs <= limits.longestWaitMs,
    ],
    [
      `${held} leases held, % of a core`,
      heartbeatPercent.toFixed(1),
      `at most ${limits.heartbeatPercent}`,
      heartbeatPercent <= limits.heartbeatPercent,
    ],
  ] as const;
  for (const [what, figure, limit, kept] of rows) {
    console.log(`${what.padEnd(46)} ${figure.padEnd(34)} ${limit}${kept ? '' : '   MISSED'}`);
    if (!kept) process.exitCode = 1;
  }
}

const [locksDir] = process.argv.slice(2);
if (locksDir !== undefined) {
  const go = once(process, 'message');
  process.send!('up');
  await go;
  const share = await contend(locksDir);
  process.send!(share, () => process.disconnect());
} else {
  const root = mkdtempSync(join(tmpdir(), 'bench-lock-'));
  try {
    await main(root);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}
