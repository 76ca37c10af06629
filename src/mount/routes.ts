/**
 * The admin routes under one prefix, and the resolver hook on every context of the host.
 *
 * Each route asks the authorize hook first; an error of ours becomes a status and its message, which by rule names
 * no place of this machine.
 */
import type { Router } from '@koa/router';
import type { Context, Middleware } from 'koa';

import { isReceiverError, ReceiverError, type ErrorCode } from '../errors.js';
import type { ReceiverCore } from '../core.js';
import { refusal, type Authorize } from './authorize.js';
import { readJsonObject } from './body.js';
import { loadRouter } from './host-libraries.js';
import type { HostPaths } from './host-paths.js';
import { addRetentionRoutes } from './retention-routes.js';
import { jobView, peerView, requestView, stateOf } from './state.js';

declare module 'koa' {
  interface ExtendableContext {
    /** Where things are, for local and remote configurations alike; set by `receiver.routes()`. */
    esphomePaths: HostPaths;
  }
}

const statusOf: Partial<Record<ErrorCode, number>> = {
  TRAVERSAL: 400,
  OPTIONS: 400,
  PAIRING: 409,
  STATE: 409,
  NOT_FOUND: 404,
  LOCK_TIMEOUT: 409,
};

export interface RoutesOptions {
  readonly core: ReceiverCore;
  readonly hostPaths: HostPaths;
  readonly prefix: string;
  readonly authorize: Authorize | undefined;
}

/**
 * One middleware for `app.use`. The question of authority stands in front of the router and not in it: a router that
 * matched its routes in any case, and its own middleware only in the written one, let strangers in.
 */
export function createRoutes({ core, hostPaths, prefix, authorize }: RoutesOptions): Middleware {
  const router = new (loadRouter())({ prefix, sensitive: true });
  addRoutes(router, core);
  addRetentionRoutes(router, core);
  const routed = router.routes() as unknown as Middleware;
  const guarded = `${prefix}/`.toLowerCase();
  return async function esphomeReceiver(ctx, next) {
    ctx.esphomePaths = hostPaths;
    if (!`${ctx.path}/`.toLowerCase().startsWith(guarded)) return next();
    const refused = await refusal(ctx as Context, authorize);
    if (refused) ctx.throw(refused.status, refused.message);
    ctx.set('cache-control', 'no-store');
    let isOurs = true;
    await answerErrors(ctx as Context, async () => routed(ctx, async () => void (isOurs = false)));
    // What the host throws is the host's to answer.
    return isOurs ? undefined : next();
  };
}

async function answerErrors(ctx: Context, work: () => Promise<unknown>): Promise<unknown> {
  try {
    return await work();
  } catch (error) {
    if (!isReceiverError(error)) throw error;
    ctx.status = statusOf[error.code] ?? 500;
    ctx.body = { error: error.code, message: error.message };
    return undefined;
  }
}

/** Whose share of the pairing window the request is about. */
async function clientOf(ctx: Context): Promise<string | undefined> {
  const { client } = await readJsonObject(ctx);
  return typeof client === 'string' && client !== '' ? client : undefined;
}

function addRoutes(router: Router, core: ReceiverCore): void {
  const { pairing, peers, jobs } = core;
  router.get('/state', (ctx) => {
    ctx.body = stateOf(core);
  });
  router.post('/pairing/open', async (ctx) => {
    pairing.open(await clientOf(ctx as unknown as Context));
    ctx.body = { closes_in_ms: pairing.closesInMs() };
  });
  router.post('/pairing/close', async (ctx) => {
    pairing.close(await clientOf(ctx as unknown as Context));
    ctx.status = 204;
  });
  router.get('/pairing/requests', (ctx) => {
    ctx.body = pairing.requests().map(requestView);
  });
  router.post('/pairing/requests/:id/approve', async (ctx) => {
    const { pin } = await readJsonObject(ctx as unknown as Context);
    if (typeof pin !== 'string') throw new ReceiverError('OPTIONS', 'the pin that was shown is needed');
    const { dashboardId } = await pairing.approve(ctx.params['id'] ?? '', pin);
    ctx.body = { dashboard_id: dashboardId };
  });
  router.post('/pairing/requests/:id/reject', (ctx) => {
    ctx.status = pairing.reject(ctx.params['id'] ?? '') ? 204 : 404;
  });
  router.get('/peers', (ctx) => {
    ctx.body = peers.list().map(peerView);
  });
  router.delete('/peers/:id', async (ctx) => {
    const { data } = ctx.query;
    if (data !== undefined && data !== 'keep' && data !== 'delete')
      throw new ReceiverError('OPTIONS', 'data must be keep or delete');
    ctx.status = (await peers.revoke(ctx.params['id'] ?? '', { data })) ? 204 : 404;
  });
  router.get('/jobs', (ctx) => {
    ctx.body = jobs.list().map(jobView);
  });
  router.get('/jobs/:id', (ctx) => {
    const job = jobs.get(ctx.params['id'] ?? '');
    if (job) ctx.body = jobView(job);
  });
  router.post('/jobs/:id/cancel', (ctx) => {
    ctx.status = jobs.cancel(ctx.params['id'] ?? '') ? 202 : 404;
  });
}
