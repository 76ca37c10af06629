/**
 * A real process that prints as fast as it can, through the whole receiver to a follower that only counts, beside the
 * original receiver with the same compiler, when it is installed. Lines that ours drops because the follower is behind
 * do not count.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { Cleanups } from '../../test/support/temp-dir.js';
import { standInEsphome } from '../../src/testing/index.js';
import { createOffloader, dial, loadOffloaderIdentity, type Transport } from '../../src/koa/offloader.js';
import { host } from '../transfer/client.js';
import { configuration, makeBundle, mebibyte, renew } from '../transfer/inputs.js';
import { findOriginal, startOriginal } from '../transfer/original.js';
import type { ServerAddress } from '../transfer/server-process.js';
import { startServer } from '../transfer/servers.js';
import { median, type Row } from '../transfer/table.js';
import { linePattern, messageBytes } from './lines.js';

const rounds = 3;
const lines = 100_000;
/** After so long without a line the job has ended, and what has not come is lost. */
const quietMs = 1_000;
/** Ids of jobs and the spelling of JSON differ a little; frames of other types are much shorter. */
const toleranceBytes = 40;

export async function measureCompileOutput(t: Cleanups, base: string): Promise<Row[]> {
  const bundle = await makeBundle(mebibyte);
  const compiler = join(base, 'esphome');
  await writeFile(compiler, script, { mode: 0o755 });
  const place = async (name: string): Promise<{ directory: string; compiler: string }> => {
    const directory = join(base, name);
    await mkdir(directory);
    return { directory, compiler };
  };
  const venv = await findOriginal();
  const ours = await follow(t, await startServer(t, 'whole', await place('prints')), join(base, 'p'));
  const original =
    venv && (await follow(t, await startOriginal(t, venv, await place('original')), join(base, 'o')));
  const figures: { ours: number; original: number }[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const figure = { ours: await ours(bundle), original: NaN };
    figures.push(original ? { ...figure, original: await original(bundle) } : figure);
  }
  return [
    {
      what: 'a compile of 100,000 lines -> follower',
      ours: median(figures.map((figure) => figure.ours)),
      original: original ? median(figures.map((figure) => figure.original)) : undefined,
      ratio: original ? median(figures.map((figure) => figure.ours / figure.original)) : undefined,
      ...{ unit: 'lines/s', limit: { atLeast: 2 }, isRatio: true },
    },
  ];
}

const script = `#!/bin/sh
case " $* " in
  *' compile '*) seq -f '${linePattern}' 0 ${lines - 1} ;;
esac
exec ${standInEsphome.map((word) => `'${word}'`).join(' ')} "$@"
`;

/** Lines a second from the first to the last. */
type Flood = (bundle: Buffer) => Promise<number>;

/** Each flood has a session of its own, whose cipher is out of step afterwards: the lines are not decrypted. */
async function follow(t: Cleanups, server: ServerAddress, directory: string): Promise<Flood> {
  const { pin, pairingKey, port } = server;
  let isOpen = false;
  let count = 0;
  let [firstAt, lastAt] = [NaN, NaN];
  const connect = async (): Promise<Transport> =>
    withoutLines(await dial({ host, port }), () => {
      if (!isOpen) return false;
      lastAt = performance.now();
      if (count === 0) firstAt = lastAt;
      count += 1;
      return true;
    });
  const identity = await loadOffloaderIdentity(directory);
  const offloader = createOffloader({ identity, connect, label: 'bench' });
  await offloader.requestPairing({ pin, pairingKey });
  return async (bundle) => {
    count = 0;
    isOpen = false;
    const session = await offloader.openSession({ pin });
    isOpen = true;
    // It ends with the session.
    const build = session.build({ file: configuration, bundle: renew(bundle) }).catch(() => {});
    const begin = performance.now();
    await new Promise<void>((resolve) => {
      const timer = setInterval(() => {
        const since = count === 0 ? begin + 30_000 : lastAt;
        if (performance.now() - since < quietMs) return;
        clearInterval(timer);
        resolve();
      }, 20);
    });
    await session.close();
    await build;
    if (count < lines) console.log(`${lines - count} of ${lines} lines have not arrived`);
    return ((count - 1) * 1_000) / (lastAt - firstAt);
  };
}

function withoutLines(transport: Transport, take: () => boolean): Transport {
  return {
    ...transport,
    get bufferedBytes() {
      return transport.bufferedBytes;
    },
    start: (events) =>
      transport.start({
        ...events,
        message(data) {
          const isLine = Math.abs(data.length - messageBytes) <= toleranceBytes;
          if (!isLine || !take()) events.message(data);
        },
      }),
  };
}
