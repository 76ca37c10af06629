/**
 * Lines of output to followers, beside the bare loop that encrypts and sends the same frames: what the link adds to
 * each line. Both wait while more than a little has not left. With 20 followers each line goes to all of them.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { Cleanups } from '../../test/support/temp-dir.js';
import { waitFor } from '../../test/support/wait-for.js';
import { median, type Row } from '../transfer/table.js';
import { followBare, followLink, type Follower } from './follower.js';
import type { FromPrinter, Printing } from './output-server.js';

const rounds = 5;
const cases = [
  { followers: 1, lines: 100_000 },
  { followers: 20, lines: 5_000 },
] as const;

export async function measureOutput(t: Cleanups, base: string): Promise<Row[]> {
  const rows: Row[] = [];
  for (const { followers, lines } of cases) {
    const ours = await startPrinter(t, 'link', join(base, `link-${followers}`), followers);
    const bare = await startPrinter(t, 'bare', join(base, `bare-${followers}`), followers);
    const figures: { ours: number; bare: number }[] = [];
    for (let round = 0; round <= rounds; round += 1) {
      const figure = { bare: await bare({ lines, followers }), ours: await ours({ lines, followers }) };
      // In the first round both are compiled.
      if (round > 0) figures.push(figure);
    }
    rows.push({
      what: `${lines.toLocaleString('en')} lines to ${followers} follower${followers > 1 ? 's' : ''}`,
      ours: median(figures.map((figure) => figure.ours)),
      bare: median(figures.map((figure) => figure.bare)),
      ratio: median(figures.map((figure) => figure.ours / figure.bare)),
      ...{ unit: 'lines/s', limit: { atLeast: 0.9 } },
    });
  }
  return rows;
}

/** Frames a second that arrive, all followers together. */
type Print = (printing: Printing) => Promise<number>;

async function startPrinter(
  t: Cleanups,
  kind: 'link' | 'bare',
  directory: string,
  count: number,
): Promise<Print> {
  await mkdir(directory);
  const child = fork(fileURLToPath(new URL('output-server.ts', import.meta.url)), [kind, directory]);
  const ended = once(child, 'exit');
  t.after(async () => {
    if (child.connected) child.disconnect();
    await ended;
  });
  const next = async (): Promise<FromPrinter> => ((await once(child, 'message')) as [FromPrinter])[0];
  const first = await next();
  if (!('port' in first)) throw new Error('the printer does not say where it is');
  const followers: Follower[] = [];
  for (let n = 0; n < count; n += 1) {
    const follower = await (kind === 'link' ? followLink(first.port, n) : followBare(first.port));
    t.after(() => follower.close());
    followers.push(follower);
  }

  return async (printing) => {
    for (const follower of followers) follower.reset();
    const begin = performance.now();
    child.send(printing);
    await next();
    const all = printing.lines * followers.length;
    const sum = (): number => followers.reduce((total, follower) => total + follower.count(), 0);
    await waitFor(() => sum() === all, { deadlineMs: 60_000, what: `the last of ${all} lines (${sum()})` });
    return (all * 1_000) / (Math.max(...followers.map((follower) => follower.lastAt())) - begin);
  };
}
