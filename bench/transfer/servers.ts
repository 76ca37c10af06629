/** Starts the receiving sides, each in a process of its own, and asks what they saw. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

import type { Cleanups } from '../../test/support/temp-dir.js';
import type { Measured } from './meter.js';
import type { FromServer, ServerAddress, ServerKind } from './server-process.js';

export interface Server extends ServerAddress {
  /** What the process was like while the work ran. */
  measure<T>(work: () => Promise<T>): Promise<Measured & { readonly result: T }>;
}

/** `directory` is the server's own; `compiler` is its `esphome`. It ends with the benchmark. */
export async function startServer(
  t: Cleanups,
  kind: ServerKind,
  { directory, compiler }: { readonly directory: string; readonly compiler: string },
): Promise<Server> {
  const child = fork(fileURLToPath(new URL('server-process.ts', import.meta.url)), [
    ...[kind, directory, compiler],
  ]);
  const ended = once(child, 'exit');
  t.after(async () => {
    if (child.connected) child.disconnect();
    await ended;
  });
  const failed = ended.then(() => {
    throw new Error(`the process of the ${kind} server has ended`);
  });
  failed.catch(() => {});

  async function next(): Promise<FromServer> {
    const [message] = (await Promise.race([once(child, 'message'), failed])) as [FromServer];
    return message;
  }

  const first = await next();
  if (!('ready' in first)) throw new Error('the server does not say where it is');
  return {
    ...first.ready,
    async measure(work) {
      child.send('begin');
      const result = await work();
      const answer = next();
      child.send('end');
      const message = await answer;
      if (!('measured' in message)) throw new Error('the server says something else');
      return { ...message.measured, result };
    },
  };
}
