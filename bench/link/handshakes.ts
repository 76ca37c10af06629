/**
 * Handshakes over real sockets, from the connection to the encrypted answer, as a client's preview does them. Compared is
 * the processor time of the answering process, because the client runs on the same machine: with `ws` and the same work
 * behind it and no check, and with that work alone, where there is not even a socket.
 */
import { initiate } from '../../src/protocol/handshake.js';
import { dial } from '../../src/koa/offloader.js';
import { identityOf } from '../../src/peers/identity.js';
import type { Cleanups } from '../../test/support/temp-dir.js';
import { median, type Row } from '../transfer/table.js';
import { host, startServer, type Server } from './servers.js';

const rounds = 3;
const perRound = 200;
const atOnce = 8;
const client = identityOf(Buffer.alloc(32, 9));

export async function measureHandshakes(t: Cleanups, directory: string): Promise<Row[]> {
  const ours = await startServer(t, 'receiver', directory);
  const sockets = await startServer(t, 'handshakes', directory);
  const bare = await startServer(t, 'bare', directory);
  const times: Record<
    'ours' | 'sockets' | 'bare' | 'single' | 'singleBare' | 'eight' | 'eightBare',
    number
  >[] = [];
  for (let round = 0; round <= rounds; round += 1) {
    const [single, eight] = [await handshakes(ours, 1), await handshakes(ours, atOnce)];
    const [singleBare, eightBare] = [await handshakes(sockets, 1), await handshakes(sockets, atOnce)];
    const alone = (await bare.run(2 * perRound)) / (2 * perRound);
    const figure = {
      ...{ ours: single.cpuMs / 2 + eight.cpuMs / 2, sockets: singleBare.cpuMs / 2 + eightBare.cpuMs / 2 },
      ...{ bare: alone, single: single.ms, eight: eight.ms },
      ...{ singleBare: singleBare.ms, eightBare: eightBare.ms },
    };
    // In the first round all of it is compiled.
    if (round > 0) times.push(figure);
  }
  const middle = (pick: (time: (typeof times)[number]) => number): number => median(times.map(pick));
  const perSecond = { unit: '/s' } as const;
  return [
    {
      ...perSecond,
      what: 'handshakes of one core, sockets and all',
      ours: middle((time) => 1_000 / time.ours),
      bare: middle((time) => 1_000 / time.sockets),
      ratio: middle((time) => time.sockets / time.ours),
      limit: { atLeast: 0.7 },
    },
    {
      ...perSecond,
      what: 'the same, the bare loop without sockets',
      ours: middle((time) => 1_000 / time.ours),
      bare: middle((time) => 1_000 / time.bare),
      ratio: middle((time) => time.bare / time.ours),
      limit: { atLeast: 0.7 },
    },
    {
      ...perSecond,
      what: 'handshakes, one after the other',
      ours: middle((time) => 1_000 / time.single),
      bare: middle((time) => 1_000 / time.singleBare),
      ratio: middle((time) => time.singleBare / time.single),
      limit: { atLeast: 0.5 },
    },
    {
      ...perSecond,
      what: 'handshakes, eight at a time',
      ours: middle((time) => 1_000 / time.eight),
      bare: middle((time) => 1_000 / time.eightBare),
      ratio: middle((time) => time.eightBare / time.eight),
      limit: { atLeast: 0.5 },
    },
  ];
}

/** Of one handshake: the server's processor time, and the time on the clock. */
async function handshakes(server: Server, lanes: number): Promise<{ cpuMs: number; ms: number }> {
  const begin = performance.now();
  const cpuMs = await server.cpuOf(() =>
    Promise.all(
      Array.from({ length: lanes }, async () => {
        for (let n = 0; n < perRound / lanes; n += 1) await handshake(server.port);
      }),
    ),
  );
  return { cpuMs: cpuMs / perRound, ms: (performance.now() - begin) / perRound };
}

async function handshake(port: number): Promise<void> {
  const transport = await dial({ host, port });
  const { answer, channel } = await initiate(transport, client, { intent: 'preview' });
  if (answer.intent_response !== 'ok') throw new Error(`the answer is ${answer.intent_response}`);
  channel.close();
}
