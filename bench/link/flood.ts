/**
 * An upload of a paired dashboard while strangers hold and renew half-open sockets, beside the same upload without them.
 * The bundle is dropped where it arrives: then nothing but the link can be slow.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { Cleanups } from '../../test/support/temp-dir.js';
import { connectClient, type Client } from '../transfer/client.js';
import { makeBundle, mebibyte, renew } from '../transfer/inputs.js';
import { startServer } from '../transfer/servers.js';
import { median, type Row } from '../transfer/table.js';

const strangers = 2_000;
const rounds = 5;
const bundleBytes = 32 * mebibyte;

export async function measureFlood(t: Cleanups, directory: string): Promise<Row[]> {
  const server = await startServer(t, 'sink', { directory, compiler: '' });
  const client = await connectClient(server, join(directory, 'client'));
  t.after(() => client.close());
  const bundle = await makeBundle(bundleBytes);
  await upload(client, bundle);
  const times: { calm: number; flooded: number }[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const calm = await upload(client, bundle);
    const end = await flood(server.port);
    try {
      times.push({ calm, flooded: await upload(client, bundle) });
    } finally {
      await end();
    }
  }
  const perSecond = (key: 'calm' | 'flooded'): number =>
    bundle.length / 1000 / median(times.map((time) => time[key]));
  return [
    {
      what: 'upload in a flood of 2,000 sockets',
      ...{ ours: perSecond('flooded'), bare: perSecond('calm'), unit: 'MB/s' },
      ratio: median(times.map(({ calm, flooded }) => calm / flooded)),
      limit: { atLeast: 0.8 },
    },
  ];
}

async function upload(client: Client, bundle: Buffer): Promise<number> {
  const build = client.build(renew(bundle));
  const ms = await build.uploaded;
  await build.done;
  return ms;
}

/** Resolves when all strangers have been there; the function ends them. */
async function flood(port: number): Promise<() => Promise<void>> {
  const program = fileURLToPath(new URL('flood-process.ts', import.meta.url));
  const child = fork(program, [String(port), String(strangers)]);
  await once(child, 'message');
  return async () => {
    const ended = once(child, 'exit');
    child.disconnect();
    await ended;
  };
}
