/**
 * Eight devices of one dashboard, built on two slots and on one: what the second slot is worth. With the stand-in, whose
 * builds mostly rest; with the real ESPHome on demand, where the processors are the limit, and there also what a shared
 * compiler cache saves the second device.
 */
import { execFile } from 'node:child_process';
import { realpath } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import type { Cleanups } from '../../test/support/temp-dir.js';
import { pairedClient, startReceiver, yaml } from '../../test/support/whole.js';
import { median, type Row } from '../transfer/table.js';
import { compileBare } from './bare-slots.js';

const devices = 8;
const rounds = 3;
const restMs = 600;
const timeoutMs = 600_000;

/** A receiver's compiler and what it is told to build. */
interface Workshop {
  readonly esphome?: string;
  readonly passEnvironment?: readonly string[];
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly text: (name: string) => string;
}

export async function measureSlots(): Promise<Row[]> {
  const workshop = { text: (name: string) => yaml(name, `sleep=${restMs}`) };
  return [await slotsRow('the stand-in', workshop, { atLeast: 1.8 }, rounds)];
}

/** Null for no installed ESPHome. `npm run test:real` installs it. */
export async function measureRealSlots(): Promise<Row[] | null> {
  const esphome = await findEsphome();
  if (esphome === null) return null;
  const workshop = (ccache: boolean, text: Workshop['text']): Workshop => ({
    ...{ esphome, text, passEnvironment: ['ESPHOME_CCACHE_ENABLE'] },
    environment: { ...process.env, ESPHOME_CCACHE_ENABLE: ccache ? '1' : '0' },
  });
  const names = Array.from({ length: devices }, (_, n) => `device-${n}`);
  const bareMs = (lanes: number): Promise<number> =>
    compileBare(
      esphome,
      names.map((name) => ({ name, text: smallest(name) })),
      lanes,
    );
  const row = await slotsRow('ESPHome', workshop(false, smallest), { atLeast: 1.6 }, 1);
  const rows = [{ ...row, bare: (await bareMs(1)) / (await bareMs(2)) }];
  if (!(await isInstalled('ccache'))) return rows;
  const [without, shared] = [await secondMs(workshop(false, usual)), await secondMs(workshop(true, usual))];
  return [
    ...rows,
    {
      what: 'the second device, with a shared ccache',
      ours: shared,
      bare: without,
      ratio: without / shared,
      ...{ unit: 'ms', limit: { atLeast: 2.3 }, isRatio: true },
    },
  ];
}

function smallest(name: string): string {
  return `esphome:\n  name: ${name}\nhost:\nlogger:\n`;
}

/** Something of most kinds. ESPHome compiles its header anew for each device, past ccache: the least that is left. */
function usual(name: string): string {
  const sensors = Array.from({ length: 8 }, (_, n) => `  - {platform: template, name: "Sensor ${n}"}\n`);
  return (
    smallest(name) +
    `sensor:\n${sensors.join('')}` +
    `switch:\n  - {platform: template, name: A, optimistic: true}\n` +
    `number:\n  - {platform: template, name: B, optimistic: true, min_value: 0, max_value: 9, step: 1}\n` +
    `select:\n  - {platform: template, name: C, optimistic: true, options: [x, y]}\n` +
    `text_sensor:\n  - {platform: template, name: D}\n`
  );
}

async function slotsRow(
  what: string,
  workshop: Workshop,
  limit: { readonly atLeast: number },
  times: number,
): Promise<Row> {
  const ratios: number[] = [];
  for (let round = 0; round < times; round += 1) {
    const [one, two] = [await buildAll(workshop, 1), await buildAll(workshop, 2)];
    ratios.push(one / two);
  }
  return {
    what: `${devices} devices on 2 slots against 1, ${what}`,
    ours: median(ratios),
    ratio: median(ratios),
    ...{ unit: 'x', limit, isRatio: true },
  };
}

/** Milliseconds until all are built, in a fresh receiver. */
async function buildAll(workshop: Workshop, slots: number): Promise<number> {
  return inFreshReceiver(workshop, slots, async (build) => {
    const begin = performance.now();
    await Promise.all(Array.from({ length: devices }, (_, n) => build(`device-${n}`)));
    return performance.now() - begin;
  });
}

/** Milliseconds for a device when another of its kind was built before. */
async function secondMs(workshop: Workshop): Promise<number> {
  return inFreshReceiver(workshop, 1, async (build) => {
    await build('first');
    const begin = performance.now();
    await build('second');
    return performance.now() - begin;
  });
}

async function inFreshReceiver(
  { text, ...options }: Workshop,
  slots: number,
  work: (build: (name: string) => Promise<void>) => Promise<number>,
): Promise<number> {
  const cleanups: (() => Promise<void> | void)[] = [];
  const t: Cleanups = { after: (cleanup) => void cleanups.unshift(cleanup) };
  try {
    const whole = await startReceiver(t, { ...options, slots, compileTimeoutMs: timeoutMs });
    const client = await pairedClient(t, whole);
    const session = await client.openSession();
    return await work(async (name) => {
      const file = `${name}.yaml`;
      const { status, errorMessage } = await session.build({
        file,
        bundle: await client.bundle(file, text(name)),
      });
      if (status !== 'completed') throw new Error(`the build of ${name} ${status}: ${errorMessage}`);
    });
  } finally {
    for (const cleanup of cleanups) await cleanup();
  }
}

async function findEsphome(): Promise<string | null> {
  const cache = process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache');
  const ready = join(cache, 'koa-esphome-receiver', 'esphome-2026.10.0', 'ready');
  return realpath(ready).then(
    (venv) => join(venv, 'bin', 'esphome'),
    () => null,
  );
}

async function isInstalled(program: string): Promise<boolean> {
  return promisify(execFile)(program, ['--version']).then(
    () => true,
    () => false,
  );
}
