/**
 * The measurements, one function for each thing that a user waits for. What is compared alternates, round by round,
 * and a ratio is the median of the rounds' ratios: a neighbour on the machine then disturbs both sides alike.
 */
import { join } from 'node:path';

import type { Client } from './client.js';
import { machineCode, mebibyte, randomBytes, renew } from './inputs.js';
import { packAsOriginal } from './original.js';
import type { Setting } from './setting.js';
import { median, type Row } from './table.js';

const rounds = 5;
/** The original takes seconds for some. */
const originalRounds = 2;
const downloadBytes = 60_000_000;
const codeBytes = 40_000_000;
const startLimitsMs = { small: 30, middle: 40, large: 60 };

export async function measureUploads(setting: Setting): Promise<Row[]> {
  const { bundles, server, ours, sink, bareServer, bare, original } = setting;
  const { large } = bundles;
  const { peakBytes: idleBytes } = await server.measure(async () => {});
  const { peakBytes: bareIdleBytes } = await bareServer.measure(async () => {});
  type Figure = 'bare' | 'ours' | 'sink' | 'start' | 'peak' | 'barePeak' | 'delay';
  const times: Record<Figure, number>[] = [];
  const originals: { upload: number; start: number }[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const loop = await bareServer.measure(() => bare.upload(large));
    const build = ours.build(renew(large));
    const { result, peakBytes, delayMs } = await server.measure(() => build.uploaded);
    const { startMs } = await build.done;
    const sinking = sink.build(renew(large));
    times.push({
      ...{ bare: loop.result, ours: result, sink: await sinking.uploaded },
      ...{ start: startMs, peak: peakBytes - idleBytes, barePeak: loop.peakBytes - bareIdleBytes },
      delay: delayMs,
    });
    await sinking.done;
    if (original && round < originalRounds) originals.push(await timesOf(original.client, large));
  }
  const megabytes = large.length / 1e6;
  const perSecond = (ms: number): number => (megabytes * 1000) / ms;
  const middle = (key: Figure): number => median(times.map((time) => time[key]));
  const theirs = (key: 'upload' | 'start'): number | undefined =>
    original ? median(originals.map((time) => time[key])) : undefined;
  const theirUpload = theirs('upload');
  const upload = { bare: perSecond(middle('bare')), unit: 'MB/s' } as const;
  return [
    {
      ...upload,
      what: 'upload of 128 MiB, unpacked',
      ours: perSecond(middle('ours')),
      original: theirUpload && perSecond(theirUpload),
      ratio: median(times.map((time) => time.bare / time.ours)),
      limit: { atLeast: 0.8 },
    },
    {
      ...upload,
      what: 'upload of 128 MiB, bytes dropped',
      ours: perSecond(middle('sink')),
      ratio: median(times.map((time) => time.bare / time.sink)),
      limit: { atLeast: 0.95 },
    },
    startRow('128 MiB', middle('start'), theirs('start'), startLimitsMs.large),
    {
      what: 'memory above idle while 128 MiB arrive',
      ours: Math.max(...times.map((time) => time.peak)) / mebibyte,
      bare: Math.max(...times.map((time) => time.barePeak)) / mebibyte,
      ...{ unit: 'MiB', limit: { atMost: 40 } },
    },
    delayRow('upload', middle('delay')),
  ];
}

/** The smaller bundles; the large one is measured with its upload. */
export async function measureStarts({ bundles, ours, original }: Setting): Promise<Row[]> {
  const rows: Row[] = [];
  for (const [what, bundle, limitMs] of [
    ['1 MiB', bundles.small, startLimitsMs.small],
    ['40 MiB', bundles.middle, startLimitsMs.middle],
  ] as const) {
    const times: number[] = [];
    const originals: number[] = [];
    for (let round = 0; round < rounds; round += 1) {
      times.push((await timesOf(ours, bundle)).start);
      if (original) originals.push((await timesOf(original.client, bundle)).start);
    }
    rows.push(startRow(what, median(times), original ? median(originals) : undefined, limitMs));
  }
  return rows;
}

export async function measureDownloads(setting: Setting): Promise<Row[]> {
  const { bundles, compiler, server, ours, bare, original } = setting;
  await compiler.leaves(randomBytes(downloadBytes));
  const { jobId } = await ours.build(renew(bundles.small)).done;
  const times: { bare: number; ours: number; first: number; delay: number }[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const bareMs = await bare.download(downloadBytes);
    const { result, delayMs } = await server.measure(() => ours.download(jobId));
    times.push({ bare: bareMs, ours: result.totalMs, first: result.firstChunkMs, delay: delayMs });
  }
  const theirs = original && (await downloadOf(original.client, renew(bundles.small)));
  const perSecond = (ms: number): number => downloadBytes / 1000 / ms;
  const middle = (key: keyof (typeof times)[number]): number => median(times.map((time) => time[key]));
  return [
    {
      what: 'download of 60 MB, packed before',
      ours: perSecond(middle('ours')),
      bare: perSecond(middle('bare')),
      original: theirs ? perSecond(theirs.totalMs) : undefined,
      ratio: median(times.map((time) => time.bare / time.ours)),
      unit: 'MB/s',
      limit: { atLeast: 0.79 },
    },
    {
      what: 'request -> first chunk',
      ours: middle('first'),
      original: theirs?.firstChunkMs,
      ...{ unit: 'ms', limit: { atMost: 20 } },
    },
    delayRow('download', middle('delay')),
  ];
}

async function downloadOf(
  client: Client,
  bundle: Buffer,
): Promise<{ totalMs: number; firstChunkMs: number }> {
  const { jobId } = await client.build(bundle).done;
  return client.download(jobId);
}

/** Against Python's packing alone, which the original begins only when it is asked for the files. */
export async function measurePacking(setting: Setting): Promise<Row[]> {
  const { base, bundles, compiler, ours, original } = setting;
  const code = await machineCode(codeBytes);
  await compiler.leaves(code);
  const times: { ours: number; python: number }[] = [];
  for (let round = 0; round < originalRounds; round += 1) {
    const { jobId, compilerEndedAt } = await ours.build(renew(bundles.small)).done;
    const { endedAt } = await ours.download(jobId);
    const python = original ? await packAsOriginal(original.venv, join(base, 'code'), code) : NaN;
    times.push({ ours: endedAt - compilerEndedAt, python });
  }
  return [
    {
      what: "compiler's end -> last byte, 40 MB of code",
      ours: median(times.map((time) => time.ours)),
      original: original ? median(times.map((time) => time.python)) : undefined,
      ratio: original ? median(times.map((time) => time.ours / time.python)) : undefined,
      ...{ unit: 'ms', limit: { atMost: 0.4 } },
    },
  ];
}

export async function measureRepeats({ bundles, cached }: Setting): Promise<Row[]> {
  const { small } = bundles;
  await cached.build(renew(small)).done;
  const times: number[] = [];
  for (let round = 0; round < rounds; round += 1) times.push((await cached.build(renew(small)).done).totalMs);
  return [
    {
      what: 'the same bundle again -> completed',
      ours: median(times),
      ...{ unit: 'ms', limit: { atMost: 200 } },
    },
  ];
}

async function timesOf(client: Client, bundle: Buffer): Promise<{ upload: number; start: number }> {
  const build = client.build(renew(bundle));
  const upload = await build.uploaded;
  return { upload, start: (await build.done).startMs };
}

function startRow(bundle: string, ours: number, original: number | undefined, atMost: number): Row {
  return { what: `last chunk's ack -> compiler, ${bundle}`, ours, original, unit: 'ms', limit: { atMost } };
}

function delayRow(during: string, ours: number): Row {
  return { what: `event loop delay (p99), ${during}`, ours, unit: 'ms', limit: { atMost: 20 } };
}
