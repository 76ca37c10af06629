/**
 * The libraries that only a Koa host needs, loaded when it mounts the receiver: for a build server without a dashboard
 * they were a quarter of its start. By `require`, because `mount` and `routes` cannot wait for an `import()`.
 */
import { createRequire } from 'node:module';

import type { Router } from '@koa/router';
import type websockify from 'koa-websocket';

const load = createRequire(import.meta.url);

export function loadRouter(): typeof Router {
  return (load('@koa/router') as { readonly Router: typeof Router }).Router;
}

export function loadWebsockify(): typeof websockify {
  return load('koa-websocket') as typeof websockify;
}
