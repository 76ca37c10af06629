/** A whole receiver with the stand-in compiler, and our client paired with it, over real sockets. */
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

import type Koa from 'koa';

import { createReceiver, type Receiver, type ReceiverOptions } from '../../src/index.js';
import {
  createOffloader,
  dial,
  loadOffloaderIdentity,
  makeBundle,
  type Offloader,
  type OffloaderIdentity,
  type OffloaderSession,
  type Transport,
} from '../../src/koa/offloader.js';
import { standInEsphome } from '../../src/testing/index.js';
import { dashboardId as asDashboardId } from '../../src/paths/index.js';
import { tempDir, type Cleanups } from './temp-dir.js';

const host = '127.0.0.1';

export interface Whole {
  readonly receiver: Receiver;
  /** The options that it was created with. */
  readonly options: ReceiverOptions;
  readonly port: number;
  readonly base: string;
}

/** A receiver on a free port. By default it installs no versions, so it needs no Python. */
export async function startReceiver(t: Cleanups, options: Partial<ReceiverOptions> = {}): Promise<Whole> {
  const base = await tempDir(t);
  const configDir = join(base, 'config');
  await mkdir(configDir);
  const own = { configDir, esphome: standInEsphome, provisionVersions: false, ...options };
  const receiver = await createReceiver(own);
  t.after(() => receiver.close());
  return { receiver, options: own, port: await receiver.listen(0, host), base };
}

/** Serves the app of a host on a free port; the end of the test cuts what is open. */
export async function serveApp(t: Cleanups, app: Pick<Koa, 'listen'>): Promise<number> {
  const server = app.listen(0, host);
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

export interface Client {
  readonly offloader: Offloader;
  readonly identity: OffloaderIdentity;
  readonly dashboardId: string;
  /** Its connections, newest last. */
  readonly transports: readonly Transport[];
  openSession(): Promise<OffloaderSession>;
  /** The bundle of a single YAML with this text. */
  bundle(file: string, text: string): Promise<Buffer>;
}

/** A client with its own key, not yet paired; its id can be one that another client uses. */
export async function newClient(
  t: Cleanups,
  whole: Whole,
  name = 'client',
  port = whole.port,
  id?: string,
): Promise<Client> {
  const directory = join(await tempDir(t), name);
  const own = await loadOffloaderIdentity(directory);
  const identity = { ...own, ...(id !== undefined && { dashboardId: asDashboardId(id) }) };
  const transports: Transport[] = [];
  const connect = async (): Promise<Transport> => {
    const transport = await dial({ host, port });
    transports.push(transport);
    return transport;
  };
  const offloader = createOffloader({ identity, connect, label: name });
  return {
    offloader,
    identity,
    transports,
    dashboardId: identity.dashboardId,
    async openSession() {
      const session = await offloader.openSession({ pin: whole.receiver.pin });
      t.after(() => session.close());
      return session;
    },
    async bundle(file, text) {
      const configDir = join(directory, 'yaml');
      await mkdir(configDir, { recursive: true });
      await writeFile(join(configDir, file), text);
      return (await makeBundle({ configDir, file })).bytes;
    },
  };
}

/** A new client, paired by an operator who approves the shown request. */
export async function pairedClient(
  t: Cleanups,
  whole: Whole,
  name = 'client',
  port = whole.port,
): Promise<Client> {
  const { pairing, pin } = whole.receiver;
  const client = await newClient(t, whole, name, port);
  pairing.open();
  await client.offloader.requestPairing({ pin });
  const request = pairing.requests().find(({ dashboardId }) => dashboardId === client.dashboardId);
  if (!request) throw new Error('the pairing request has not arrived');
  await pairing.approve(request.dashboardId, request.pin);
  return client;
}

/** A `host:` configuration for the stand-in, with its knobs. */
export function yaml(name: string, knobs = ''): string {
  return `# stand-in: ${knobs}\nesphome:\n  name: ${name}\nhost:\n`;
}
