/** The admin routes of what is kept: who takes how much of the disk, a sweep, limits, a clean, a reset. */
import type { Router } from '@koa/router';
import type { Context } from 'koa';

import type { ReceiverCore } from '../core.js';
import { ReceiverError } from '../errors.js';
import type { ResetWish } from '../retention/retention.js';
import { readJsonObject } from './body.js';

type Body = Readonly<Record<string, unknown>>;

export function addRetentionRoutes(router: Router, { retention, clean }: ReceiverCore): void {
  router.get('/usage', async (ctx) => {
    ctx.body = await retention.usage();
  });
  router.get('/retention', (ctx) => {
    ctx.body = retention.limits();
  });
  router.patch('/retention', async (ctx) => {
    ctx.body = await retention.setLimits(await bodyOf(ctx));
  });
  router.post('/sweep', async (ctx) => {
    ctx.body = await retention.sweep({ dryRun: isDryRun(await bodyOf(ctx)) });
  });
  router.post('/clean', async (ctx) => {
    await clean(textOf(await bodyOf(ctx), 'configuration'));
    ctx.status = 204;
  });
  router.post('/reset', async (ctx) => {
    const body = await bodyOf(ctx);
    ctx.body = await retention.reset(wishOf(body), { dryRun: isDryRun(body) });
  });
}

async function bodyOf(ctx: unknown): Promise<Body> {
  return readJsonObject(ctx as Context);
}

/** Whoever asks for one in a way that is not understood must not lose anything. */
function isDryRun({ dry_run: dryRun = false }: Body): boolean {
  if (typeof dryRun === 'boolean') return dryRun;
  throw new ReceiverError('OPTIONS', 'dry_run must be true or false');
}

function wishOf(body: Body): ResetWish {
  if (body['all'] === true) return 'all';
  if ('configuration' in body) return { configuration: textOf(body, 'configuration') };
  if ('dashboard_id' in body) return { dashboardId: textOf(body, 'dashboard_id') };
  if ('version' in body) return { version: textOf(body, 'version') };
  if ('toolchain' in body) return { toolchain: textOf(body, 'toolchain') };
  throw new ReceiverError(
    'OPTIONS',
    'one of configuration, dashboard_id, version, toolchain or all is needed',
  );
}

function textOf(body: Body, name: string): string {
  const value = body[name];
  if (typeof value === 'string') return value;
  throw new ReceiverError('OPTIONS', `${name} must be a text`);
}
