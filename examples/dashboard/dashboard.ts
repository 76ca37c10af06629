/**
 * The dashboard as a Koa application: the guard, the receiver, and the dashboard's own routes.
 *
 * The receiver is mounted in one line. Its `authorize` hook makes the same check as the dashboard's own guard, and reads
 * the request itself, because no middleware of `app.use` runs for the WebSocket of the events.
 */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

import Koa from 'koa';

import { createReceiver, type Receiver, type ReceiverOptions } from 'koa-esphome-receiver';
import { guard, operatorCheck } from './guard.js';
import { dashboardRoutes } from './routes.js';

const host = '127.0.0.1';

export interface DashboardOptions {
  readonly password: string;
  /** 0 takes a free one. */
  readonly port: number;
  readonly receiver: Omit<ReceiverOptions, 'authorize'>;
}

export interface Dashboard {
  readonly url: string;
  readonly receiver: Receiver;
  close(): Promise<void>;
}

export async function startDashboard(options: DashboardOptions): Promise<Dashboard> {
  const isOperator = operatorCheck(options.password);
  const receiver = await createReceiver({ ...options.receiver, authorize: isOperator });
  const app = new Koa();
  app.use(guard(isOperator));
  receiver.mount(app); // the admin routes below /esphome-receiver, the events, the peer link, ctx.esphomePaths
  app.use(dashboardRoutes(receiver));

  const server = app.listen(options.port, host);
  await once(server, 'listening');
  return {
    url: `http://${host}:${(server.address() as AddressInfo).port}`,
    receiver,
    async close() {
      await receiver.close();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
