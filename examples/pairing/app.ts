/** The host as a Koa application: the guard, the receiver, and the page on which the operator decides. */
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import Koa from 'koa';

import { createReceiver, type Receiver, type ReceiverOptions } from 'koa-esphome-receiver';
import { guard, operatorCheck } from '../dashboard/guard.js';
import { pairingRoutes } from './routes.js';

const host = '127.0.0.1';

export interface HostOptions {
  readonly password: string;
  /** Ports of the page and of the peer link; 0 takes a free one. */
  readonly port: number;
  readonly linkPort: number;
  readonly receiver: Omit<ReceiverOptions, 'authorize'>;
}

export interface Host {
  readonly url: string;
  readonly linkPort: number;
  readonly receiver: Receiver;
  close(): Promise<void>;
}

export async function startHost(options: HostOptions): Promise<Host> {
  const isOperator = operatorCheck(options.password);
  const receiver = await createReceiver({ ...options.receiver, authorize: isOperator });
  const app = new Koa();
  app.use(guard(isOperator));
  receiver.mount(app); // the admin routes below /esphome-receiver, and the events that keep the page fresh
  let server: Server | undefined;
  async function close(): Promise<void> {
    await receiver.close();
    server?.closeAllConnections();
    if (server?.listening) await new Promise((resolve) => server?.close(resolve));
  }
  try {
    const linkPort = await receiver.listen(options.linkPort, host);
    app.use(pairingRoutes(receiver, `${host}:${linkPort}`));
    server = app.listen(options.port, host);
    await once(server, 'listening');
    const url = `http://${host}:${(server.address() as AddressInfo).port}/`;
    return { url, linkPort, receiver, close };
  } catch (error) {
    await close();
    throw error;
  }
}
