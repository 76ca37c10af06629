/** All who take part in one run: the receiver, its link alone, the bare loop, and the original when it is there. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { tempDir, type Cleanups } from '../../test/support/temp-dir.js';
import { connectBare, type BareClient } from './bare.js';
import { connectClient, host, type Client } from './client.js';
import { makeCompiler, type Compiler } from './compiler.js';
import { makeBundle, mebibyte } from './inputs.js';
import { findOriginal, startOriginal } from './original.js';
import type { ServerAddress } from './server-process.js';
import { startServer, type Server } from './servers.js';

export interface Setting {
  /** For files of the benchmark's own. */
  readonly base: string;
  readonly compiler: Compiler;
  /** Of 1, 40 and 128 MiB. */
  readonly bundles: { readonly small: Buffer; readonly middle: Buffer; readonly large: Buffer };
  readonly server: Server;
  readonly ours: Client;
  /** Of a receiver that uses results again. */
  readonly cached: Client;
  readonly sink: Client;
  readonly bareServer: Server;
  readonly bare: BareClient;
  /** Null when it is not installed. */
  readonly original: { readonly venv: string; readonly client: Client } | null;
}

export async function prepare(t: Cleanups): Promise<Setting> {
  const base = await tempDir(t);
  const compiler = await makeCompiler(base);
  const bundles = {
    small: await makeBundle(mebibyte),
    middle: await makeBundle(40 * mebibyte),
    large: await makeBundle(128 * mebibyte),
  };

  async function place(name: string): Promise<{ readonly directory: string; readonly compiler: string }> {
    const directory = join(base, name);
    await mkdir(directory);
    return { directory, compiler: compiler.command };
  }

  async function connect(server: ServerAddress, name: string): Promise<Client> {
    const client = await connectClient(server, join(base, name));
    t.after(() => client.close());
    return client;
  }

  async function connectOriginal(venv: string): Promise<Client> {
    return connect(await startOriginal(t, venv, await place('original')), 'client-of-original');
  }

  const bareServer = await startServer(t, 'bare', await place('bare'));
  const bare = await connectBare(host, bareServer.port);
  t.after(() => bare.close());
  const sink = await connect(await startServer(t, 'sink', await place('sink')), 'client-of-sink');
  const server = await startServer(t, 'whole', await place('whole'));
  const ours = await connect(server, 'client');
  const cached = await connect(await startServer(t, 'cached', await place('cached')), 'client-of-cached');
  const venv = await findOriginal();
  const original = venv === null ? null : { venv, client: await connectOriginal(venv) };
  return { base, compiler, bundles, server, ours, cached, sink, bareServer, bare, original };
}
