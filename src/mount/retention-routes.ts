/** The admin routes of what is kept: who takes how much of the disk, a sweep, limits, a clean, a reset. */
import type { Router } from '@koa/router';
import type { Context } from 'koa';

import type { ReceiverCore } from '../core.js';
import { quote, ReceiverError } from '../errors.js';
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
function wishOf(body: Body): ResetWish {
  const [name, ...more] = resettable.filter((each) => body[each] !== undefined);
  const value = name && body[name];
  if (name !== undefined && more.length === 0) {
    if (name === 'all' && value === true) return 'all';
    if (name !== 'all' && typeof value === 'string') return { [name]: value } as unknown as ResetWish;
  }
  throw new ReceiverError('OPTIONS', `one of ${resettable.join(', ')} is needed`);
}
