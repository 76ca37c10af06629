/**
 * The dashboard's own routes, named as in ESPHome's dashboard: a page, a list as JSON, the details, a download, archive
 * and delete.
 *
 * A route accepts only configurations in the list. To the resolver, `secrets.yaml` is an ordinary local file, so a
 * dashboard that deletes any given name would delete it too.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

import { Router } from '@koa/router';
import type { Context, Middleware } from 'koa';

import { isReceiverError, type ErrorCode, type Receiver } from 'koa-esphome-receiver';
import { describe, knownDevices, type Known } from './devices.js';
import { page, style } from './page.js';
import { archiveDevice, deleteDevice } from './removal.js';

const statusOf: Partial<Record<ErrorCode, number>> = { TRAVERSAL: 400, STORAGE: 404, LOCK_TIMEOUT: 409 };

const securityHeaders = {
  'content-security-policy':
    "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
  'x-content-type-options': 'nosniff',
  // With no-referrer a browser says `Origin: null` of the page's own forms, and the guard refuses them.
  'referrer-policy': 'same-origin',
  'cache-control': 'no-store',
};

export function dashboardRoutes(receiver: Receiver): Middleware {
  async function devices(ctx: Pick<Context, 'esphomePaths'>) {
    const known = await knownDevices(receiver);
    return Promise.all(known.map((device) => describe(ctx.esphomePaths, device)));
  }

  /** The device that the query names. Throws `TRAVERSAL` for a name that is refused, 404 for an unknown one. */
  async function wanted(ctx: Pick<Context, 'esphomePaths' | 'query' | 'throw'>): Promise<Known> {
    const configuration = String(ctx.query['configuration'] ?? '');
    ctx.esphomePaths.parseConfiguration(configuration);
    const known = await knownDevices(receiver);
    return known.find((device) => device.configuration === configuration) ?? ctx.throw(404, 'no such device');
  }
  const router = new Router();
  router.use(async (ctx, next) => {
    ctx.set(securityHeaders);
    try {
      await next();
    } catch (error) {
      if (!isReceiverError(error)) throw error;
      ctx.status = statusOf[error.code] ?? 500;
      ctx.body = { error: error.code, message: error.message };
    }
  });

  router.get('/', async (ctx) => {
    ctx.type = 'html';
    ctx.body = page(await devices(ctx));
  });
  router.get('/style.css', (ctx) => {
    ctx.type = 'css';
    ctx.body = style;
  });
  router.get('/devices', async (ctx) => {
    ctx.body = await devices(ctx);
  });
  router.get('/info', async (ctx) => {
    ctx.body = await describe(ctx.esphomePaths, await wanted(ctx));
  });
  router.get('/download.bin', async (ctx) => {
    const { configuration } = await wanted(ctx);
    const { storage, files } = await ctx.esphomePaths.loadBuildArtifacts(configuration);
    const wish = ctx.query['file'];
    const file = files.find(({ name }) => name === wish) ?? ctx.throw(404, 'the build has no such file');
    // The file of a peer's build may become a link in the last moment.
    const handle = await open(file.path, constants.O_RDONLY | constants.O_NOFOLLOW);
    ctx.body = handle.createReadStream();
    ctx.length = file.bytes;
    ctx.attachment(`${storage.name}-${file.name}`);
    ctx.type = 'application/octet-stream';
  });
  router.post('/archive', async (ctx) => {
    const { configuration, peer } = await wanted(ctx);
    if (peer !== null)
      ctx.throw(409, 'the configuration belongs to a peer: it can be deleted here, but not archived');
    await archiveDevice(receiver, configuration).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
      ctx.throw(409, 'the archive already has a file with this name');
    });
    ctx.redirect('/');
  });
  router.post('/delete', async (ctx) => {
    const { configuration } = await wanted(ctx);
    const isRunning = receiver.jobs
      .list()
      .some((job) => job.configuration === configuration && job.state === 'running');
    if (isRunning) ctx.throw(409, 'the device is being compiled');
    await deleteDevice(receiver, configuration);
    ctx.redirect('/');
  });
  return router.routes() as unknown as Middleware;
}
