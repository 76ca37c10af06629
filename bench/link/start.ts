/**
 * From the start of the built program until it says that it listens, beside a bare Koa with `ws` that does the same.
 * The processor time, all threads together, is what a busy machine does not change.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { median, type Row } from '../transfer/table.js';

const rounds = 9;
const pathOf = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

interface Start {
  readonly ms: number;
  readonly cpuMs: number;
  readonly mebibytes: number;
}

/** Before anything that measures what is published. */
export function build(): void {
  execFileSync(process.execPath, [pathOf('../../scripts/build.mjs')], { stdio: 'inherit' });
}

export async function measureStart(directory: string): Promise<Row[]> {
  const words = ['--port', '0', '--host', '127.0.0.1', '--esphome', '/bin/true', '--json'];
  const times: { readonly ours: Start; readonly bare: Start }[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const place = join(directory, String(round));
    const ours = await start([pathOf('../../dist/cli/main.js'), 'serve', place, ...words]);
    times.push({ ours, bare: await start([pathOf('bare-koa.mjs')]) });
  }
  const row = (key: keyof Start): Pick<Row, 'ours' | 'bare' | 'ratio'> => ({
    ours: median(times.map(({ ours }) => ours[key])),
    bare: median(times.map(({ bare }) => bare[key])),
    ratio: median(times.map(({ ours, bare }) => ours[key] / bare[key])),
  });
  return [
    { ...row('ms'), what: 'start -> listening', unit: 'ms', limit: { atMost: 300 } },
    {
      ...{ ...row('cpuMs'), what: 'start -> listening, processor time' },
      ...{ unit: 'ms', isRatio: true, limit: { atMost: 1.2 } },
    },
    { ...row('mebibytes'), what: 'memory when it listens', unit: 'MiB', limit: { atMost: 76 } },
  ];
}

async function start(words: readonly string[]): Promise<Start> {
  const begin = performance.now();
  const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  await once(child.stdout, 'data');
  const ms = performance.now() - begin;
  const proc = `/proc/${child.pid}`;
  const nanoseconds = readdirSync(`${proc}/task`).map((task) =>
    Number(readFileSync(`${proc}/task/${task}/schedstat`, 'utf8').split(' ')[0]),
  );
  const [, kibibytes] = /VmRSS:\s+(\d+)/.exec(readFileSync(`${proc}/status`, 'utf8')) ?? [];
  child.kill('SIGTERM');
  await ended;
  return {
    ms,
    cpuMs: nanoseconds.reduce((sum, time) => sum + time, 0) / 1e6,
    mebibytes: Number(kibibytes) / 1024,
  };
}
