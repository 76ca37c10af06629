/**
 * The admin routes below one prefix, and `ctx.esphomePaths` on every context of the host. Each request is authorized
 * before it is routed. A `ReceiverError` becomes a status and its message, which never contains a host path.
 */
import { createRequire } from 'node:module';

import type { Router, RouterContext } from '@koa/router';
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
import type { LaneView } from '../views.js';

const statusOf: Partial<Record<ErrorCode, number>> = {
  TRAVERSAL: 400,
  OPTIONS: 400,
  PAIRING: 409,
  STATE: 409,
  NOT_FOUND: 404,
  LOCK_TIMEOUT: 409,
};

interface RoutesOptions {
  readonly core: ReceiverCore;
  readonly lanes: () => readonly LaneView[];
  readonly hostPaths: HostPaths;
  readonly prefix: string;
  readonly authorize: Authorize | undefined;
}

/**
 * A middleware for `app.use`. It authorizes in front of the router and not inside it: a router that matched its routes in
 * any letter case, but its own middleware only in the written case, let strangers in.
 */
export function createRoutes({ core, lanes, hostPaths, prefix, authorize }: RoutesOptions): Middleware {
  const router = new (loadRouter())({ prefix, sensitive: true });
  addRoutes(router, core, lanes);
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
    // Outside of `answerErrors`: the host answers its own errors.
    return isOurs ? undefined : next();
  };
}

async function answerErrors(ctx: Context, handle: () => Promise<unknown>): Promise<void> {
  try {
    await handle();
  } catch (error) {
    if (!isReceiverError(error)) throw error;
    ctx.status = statusOf[error.code] ?? 500;
    ctx.body = { error: error.code, message: error.message };
  }
}

/** The request that made a decision, for the log. */
function requestName({ method, path, ip }: RouterContext): string {
  return `${method} ${path} from ${ip}`;
}

/** The page whose share of the pairing window the request changes. */
async function clientOf(ctx: RouterContext): Promise<string | undefined> {
  const { client } = await readJsonObject(ctx);
  return typeof client === 'string' && client !== '' ? client : undefined;
}

function addRoutes(router: Router, core: ReceiverCore, lanes: () => readonly LaneView[]): void {
  const { pairing, peers, jobs } = core;
  router.get('/state', (ctx) => {
    ctx.body = stateOf(core, lanes());
  });
  router.post('/pairing/open', async (ctx) => {
    pairing.open(await clientOf(ctx));
    ctx.body = { closesInMs: pairing.closesInMs() };
  });
  router.post('/pairing/close', async (ctx) => {
    pairing.close(await clientOf(ctx));
    ctx.status = 204;
  });
  router.get('/pairing/requests', (ctx) => {
    ctx.body = pairing.requests();
  });
  router.post('/pairing/requests/:id/approve', async (ctx) => {
    const { pin } = await readJsonObject(ctx);
    if (typeof pin !== 'string')
      throw new ReceiverError('OPTIONS', 'field "pin" must be the pin of the request');
    const by = requestName(ctx);
    const { dashboardId } = await pairing.approve(ctx.params['id'] ?? '', pin, { by });
    ctx.body = { dashboardId };
  });
  router.post('/pairing/requests/:id/reject', (ctx) => {
    if (!pairing.reject(ctx.params['id'] ?? '', { by: requestName(ctx) }))
      throw new ReceiverError('NOT_FOUND', 'no such pairing request');
    ctx.status = 204;
  });
  router.get('/peers', (ctx) => {
    ctx.body = peers.list();
  });
  router.delete('/peers/:id', async (ctx) => {
    const { data } = ctx.query;
    if (data !== undefined && data !== 'keep' && data !== 'delete')
      throw new ReceiverError('OPTIONS', 'query parameter "data" must be "keep" or "delete"');
    if (!(await peers.revoke(ctx.params['id'] ?? '', { data, by: requestName(ctx) })))
      throw new ReceiverError('NOT_FOUND', 'no such peer');
    ctx.status = 204;
  });
  router.get('/jobs', (ctx) => {
    ctx.body = jobs.list();
  });
  router.get('/jobs/:id', (ctx) => {
    const job = jobs.get(ctx.params['id'] ?? '');
    if (job === undefined) throw new ReceiverError('NOT_FOUND', 'no such job');
    ctx.body = job;
  });
  router.post('/jobs/:id/cancel', (ctx) => {
    if (!jobs.cancel(ctx.params['id'] ?? ''))
      throw new ReceiverError('NOT_FOUND', 'no such job, or it has ended');
    ctx.status = 202;
  });
}

function addRetentionRoutes(router: Router, { retention, clean }: ReceiverCore): void {
  router.get('/usage', async (ctx) => {
    ctx.body = await retention.usage();
  });
  router.get('/retention', (ctx) => {
    ctx.body = retention.limits();
  });
  router.patch('/retention', async (ctx) => {
    ctx.body = await retention.setLimits(await readJsonObject(ctx));
  });
  router.post('/sweep', async (ctx) => {
    ctx.body = await retention.sweep({ dryRun: isDryRun(await readFields(ctx, ['dryRun'])) });
  });
  router.post('/clean', async (ctx) => {
    const { configuration } = await readFields(ctx, ['configuration']);
    if (typeof configuration !== 'string')
      throw new ReceiverError('OPTIONS', 'field "configuration" must be a string');
    await clean(configuration);
    ctx.status = 204;
  });
  router.post('/reset', async (ctx) => {
    const body = await readFields(ctx, [...resettable, 'dryRun']);
    ctx.body = await retention.reset(resetTargetOf(body), { dryRun: isDryRun(body) });
  });
}

const resettable = ['configuration', 'dashboardId', 'version', 'toolchain', 'all'] as const;

/** Refuses unknown fields: with a `dryRun` that is misspelt, or that the route lacks, the request would remove data. */
async function readFields(ctx: RouterContext, names: readonly string[]): Promise<Body> {
  const body = await readJsonObject(ctx);
  const unknown = Object.keys(body).find((name) => !names.includes(name));
  if (unknown === undefined) return body;
  throw new ReceiverError('OPTIONS', `unknown field ${quote(unknown)} (allowed: ${names.join(', ')})`);
}

function isDryRun({ dryRun = false }: Body): boolean {
  if (typeof dryRun === 'boolean') return dryRun;
  throw new ReceiverError('OPTIONS', 'field "dryRun" must be true or false');
}

function resetTargetOf(body: Body): ResetTarget {
  const [name, ...more] = resettable.filter((each) => body[each] !== undefined);
  const value = name && body[name];
  if (name !== undefined && more.length === 0) {
    if (name === 'all' && value === true) return 'all';
    if (name !== 'all' && typeof value === 'string') return { [name]: value } as unknown as ResetTarget;
  }
  const expected = `expected exactly one of ${resettable.join(', ')}`;
  throw new ReceiverError('OPTIONS', `invalid reset: ${expected} (true for all, a string for the others)`);
}

type Body = Readonly<Record<string, unknown>>;

const maxBodyBytes = 64 * 1024;

/**
 * The request's JSON object, empty for an empty body. Uses the result of the host's body parser, if there is one. Throws
 * 400 or 413 by `ctx.throw`.
 */
async function readJsonObject(ctx: RouterContext): Promise<Body> {
  const parsed = (ctx.request as { body?: unknown }).body ?? parse(ctx, await readAll(ctx));
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
    ctx.throw(400, 'invalid body: expected a JSON object');
  return parsed as Body;
}

async function readAll(ctx: RouterContext): Promise<string> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of ctx.req as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > maxBodyBytes) ctx.throw(413, `body too large: at most ${maxBodyBytes} bytes are accepted`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString('utf8');
}

function parse(ctx: RouterContext, text: string): unknown {
  if (text === '') return {};
  try {
    return JSON.parse(text);
  } catch {
    return ctx.throw(400, 'invalid body: expected JSON');
  }
}

/**
 * Loads the libraries that only a Koa host needs when it mounts the receiver: they took a quarter of the start of a build
 * server without a dashboard. By `require`, because `mount` and `routes` cannot await an `import()`.
 */
const load = createRequire(import.meta.url);

function loadRouter(): typeof Router {
  return (load('@koa/router') as { readonly Router: typeof Router }).Router;
}

export function loadWebsockify(): typeof websockify {
  return load('koa-websocket') as typeof websockify;
}
