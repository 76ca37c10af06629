/** Starts the processes that answer, and asks them what they have used. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

import type { Cleanups } from '../../test/support/temp-dir.js';
import type { FromServer, Memory, ServerKind, ToServer } from './server-process.js';

export const host = '127.0.0.1';

export interface Server {
  readonly port: number;
  /** Processor time of the server while the work runs, in milliseconds. */
  cpuOf(work: () => Promise<unknown>): Promise<number>;
  /** Has it do the bare work so many times; milliseconds of processor time. */
  run(handshakes: number): Promise<number>;
  memory(): Promise<Memory>;
}

/** It ends with the benchmark. `directory` is its own. */
export async function startServer(t: Cleanups, kind: ServerKind, directory: string): Promise<Server> {
  const child = fork(fileURLToPath(new URL('server-process.ts', import.meta.url)), [kind, directory], {
    execArgv: [...process.execArgv, '--expose-gc'],
  });
  const ended = once(child, 'exit');
  t.after(async () => {
    if (child.connected) child.disconnect();
    await ended;
  });
  const failed = ended.then(() => {
    throw new Error(`the process of the server "${kind}" has ended`);
  });
  failed.catch(() => {});

  async function next(): Promise<FromServer> {
    const [message] = (await Promise.race([once(child, 'message'), failed])) as [FromServer];
    return message;
  }
  async function ask(word: ToServer): Promise<FromServer> {
    const answer = next();
    child.send(word);
    return answer;
  }
  async function askCpu(word: ToServer): Promise<number> {
    const message = await ask(word);
    if (!('cpuMs' in message)) throw new Error('the server says something else');
    return message.cpuMs;
  }

  const first = await next();
  if (!('port' in first)) throw new Error('the server does not say where it is');
  return {
    ...first,
    async cpuOf(work) {
      const before = await askCpu('cpu');
      await work();
      return (await askCpu('cpu')) - before;
    },
    run: (handshakes) => askCpu({ handshakes }),
    async memory() {
      const message = await ask('memory');
      if (!('memory' in message)) throw new Error('the server says something else');
      return message.memory;
    },
  };
}
