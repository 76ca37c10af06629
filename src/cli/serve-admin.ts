/**
 * The admin routes of a build server that has no dashboard, at a port of this machine alone: without them nobody could
 * pair a second dashboard, revoke one, or see what fills the disk. Koa is loaded for it and not before.
 */
import { createServer } from 'node:http';

import { ReceiverError } from '../errors.js';
import type { Receiver } from '../index.js';

/** Resolves, when it listens, to what ends it. Throws `STATE` for a port that is taken, or without Koa. */
export async function serveAdmin(receiver: Receiver, port: number): Promise<() => Promise<void>> {
  const { default: Koa } = await import('koa').catch((cause: unknown) => {
    throw new ReceiverError('STATE', '--admin needs the package koa', {}, { cause });
  });
  const app = new Koa();
  // The log of the receiver says what goes wrong in it.
  app.silent = true;
  app.use(receiver.routes());
  const answer = app.callback();
  const server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      reject(
        new ReceiverError('STATE', `the port ${port} of this machine cannot be bound`, { port }, { cause }),
      );
    });
    server.listen(port, '127.0.0.1', resolve);
  });
  return () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
}
