/**
 * The admin routes under one prefix, and the resolver hook on every context of the host.
 *
 * Each route asks the authorize hook first; an error of ours becomes a status and its message, which by rule names
 * no place of this machine.
 */
import { createRequire } from 'node:module';

import type { Router } from '@koa/router';
import type { Context, Middleware } from 'koa';
import type websockify from 'koa-websocket';

import { systemClock } from '../async/clock.js';
import { isReceiverError, ReceiverError, type ErrorCode, quote } from '../errors.js';
import { createRefusalLog } from '../log.js';
import type { ReceiverCore } from '../receiver-api.js';
import type { ResetTarget } from '../retention/service.js';
import { refusal, type Authorize } from './authorize.js';
import type { HostPaths } from './host-paths.js';
import { stateOf } from './state.js';

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
  const warnRefused = createRefusalLog(core.options.log, systemClock);
  return async function esphomeReceiver(ctx, next) {
    ctx.esphomePaths = hostPaths;
    if (!`${ctx.path}/`.toLowerCase().startsWith(guarded)) return next();
    const refused = await refusal(ctx as Context, authorize);
    if (refused) {
      const facts = { method: ctx.method, path: ctx.path, address: ctx.ip, cause: refused.message };
      warnRefused(facts, 'admin request refused');
      ctx.throw(refused.status, refused.message);
    }
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

/** The request that decided something, for the log. */
function nameOf({ method, path, ip }: Context): string {
  return `${method} ${path} from ${ip}`;
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
    ctx.body = { closesInMs: pairing.closesInMs() };
  });
  router.post('/pairing/close', async (ctx) => {
    pairing.close(await clientOf(ctx as unknown as Context));
    ctx.status = 204;
  });
  router.get('/pairing/requests', (ctx) => {
    ctx.body = pairing.requests();
  });
  router.post('/pairing/requests/:id/approve', async (ctx) => {
    const { pin } = await readJsonObject(ctx as unknown as Context);
    if (typeof pin !== 'string') throw new ReceiverError('OPTIONS', 'the pin that was shown is needed');
    const by = nameOf(ctx as unknown as Context);
    const { dashboardId } = await pairing.approve(ctx.params['id'] ?? '', pin, { by });
    ctx.body = { dashboardId };
  });
  router.post('/pairing/requests/:id/reject', (ctx) => {
    const by = nameOf(ctx as unknown as Context);
    ctx.status = pairing.reject(ctx.params['id'] ?? '', { by }) ? 204 : 404;
  });
  router.get('/peers', (ctx) => {
    ctx.body = peers.list();
  });
  router.delete('/peers/:id', async (ctx) => {
    const { data } = ctx.query;
    if (data !== undefined && data !== 'keep' && data !== 'delete')
      throw new ReceiverError('OPTIONS', 'data must be keep or delete');
    const by = nameOf(ctx as unknown as Context);
    ctx.status = (await peers.revoke(ctx.params['id'] ?? '', { data, by })) ? 204 : 404;
  });
  router.get('/jobs', (ctx) => {
    ctx.body = jobs.list();
  });
  router.get('/jobs/:id', (ctx) => {
    const job = jobs.get(ctx.params['id'] ?? '');
    if (job) ctx.body = job;
  });
  router.post('/jobs/:id/cancel', (ctx) => {
    ctx.status = jobs.cancel(ctx.params['id'] ?? '') ? 202 : 404;
  });
}

/** Reads the small JSON bodies of the admin routes. Hosts have body parsers of their own; none is relied on. */
const maxBodyBytes = 64 * 1024;

/** The request's JSON object; an absent body is an empty one. Answers 400 or 413 by throwing as `ctx.throw` does. */
async function readJsonObject(ctx: Context): Promise<Readonly<Record<string, unknown>>> {
  const parsed = (ctx.request as { body?: unknown }).body ?? parse(ctx, await readAll(ctx));
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
    ctx.throw(400, 'a JSON object is needed');
  return parsed as Record<string, unknown>;
}

async function readAll(ctx: Context): Promise<string> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of ctx.req as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > maxBodyBytes) ctx.throw(413, `over ${maxBodyBytes} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString('utf8');
}

function parse(ctx: Context, text: string): unknown {
  if (text === '') return {};
  try {
    return JSON.parse(text);
  } catch {
    return ctx.throw(400, 'the body is not JSON');
  }
}

/**
 * The libraries that only a Koa host needs, loaded when it mounts the receiver: for a build server without a dashboard
 * they were a quarter of its start. By `require`, because `mount` and `routes` cannot wait for an `import()`.
 */
const load = createRequire(import.meta.url);

function loadRouter(): typeof Router {
  return (load('@koa/router') as { readonly Router: typeof Router }).Router;
}

export function loadWebsockify(): typeof websockify {
  return load('koa-websocket') as typeof websockify;
}

/** The admin routes of what is kept: who takes how much of the disk, a sweep, limits, a clean, a reset. */
type Body = Readonly<Record<string, unknown>>;

function addRetentionRoutes(router: Router, { retention, clean }: ReceiverCore): void {
  router.get('/usage', async (ctx) => {
    ctx.body = await retention.usage();
  });
  router.get('/retention', (ctx) => {
    ctx.body = retention.limits();
  });
  router.patch('/retention', async (ctx) => {
    ctx.body = await retention.setLimits(await readJsonObject(ctx as unknown as Context));
  });
  router.post('/sweep', async (ctx) => {
    ctx.body = await retention.sweep({ dryRun: isDryRun(await bodyOf(ctx, [])) });
  });
  router.post('/clean', async (ctx) => {
    const { configuration } = await bodyOf(ctx, ['configuration']);
    if (typeof configuration !== 'string') throw new ReceiverError('OPTIONS', 'configuration must be a text');
    await clean(configuration);
    ctx.status = 204;
  });
  router.post('/reset', async (ctx) => {
    const body = await bodyOf(ctx, resettable);
    ctx.body = await retention.reset(wishOf(body), { dryRun: isDryRun(body) });
  });
}

const resettable = ['configuration', 'dashboardId', 'version', 'toolchain', 'all'] as const;

/** A field that nobody knows is refused: a dry run that is misspelt would be none. */
async function bodyOf(ctx: unknown, names: readonly string[]): Promise<Body> {
  const body = await readJsonObject(ctx as Context);
  const known = [...names, 'dryRun'];
  for (const name of Object.keys(body)) {
    if (!known.includes(name))
      throw new ReceiverError('OPTIONS', `${quote(name)} is none of ${known.join(', ')}`);
  }
  return body;
}

function isDryRun({ dryRun = false }: Body): boolean {
  if (typeof dryRun === 'boolean') return dryRun;
  throw new ReceiverError('OPTIONS', 'dryRun must be true or false');
}

/** Exactly one thing. */
function wishOf(body: Body): ResetTarget {
  const [name, ...more] = resettable.filter((each) => body[each] !== undefined);
  const value = name && body[name];
  if (name !== undefined && more.length === 0) {
    if (name === 'all' && value === true) return 'all';
    if (name !== 'all' && typeof value === 'string') return { [name]: value } as unknown as ResetTarget;
  }
  throw new ReceiverError('OPTIONS', `one of ${resettable.join(', ')} is needed`);
}
