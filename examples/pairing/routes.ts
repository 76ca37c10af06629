/**
 * The page and the actions of its buttons. They are plain forms, so the page also works without its script. An approval
 * names the pin next to the button, so that a request that was replaced before the click is not approved.
 */
import { readFileSync } from 'node:fs';

import { Router } from '@koa/router';
import type { Middleware, ParameterizedContext } from 'koa';

import { isReceiverError, type ErrorCode, type Receiver } from 'koa-esphome-receiver';
import { page } from './page.js';

const statusOf: Partial<Record<ErrorCode, number>> = { TRAVERSAL: 400, OPTIONS: 400, PAIRING: 409 };
const maxFormBytes = 4096;

/** No other origins and nothing inline: a script that a stranger smuggled into the page would not run. */
const securityHeaders = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; " +
    "frame-ancestors 'none'; base-uri 'none'",
  'x-content-type-options': 'nosniff',
  // With no-referrer a browser says `Origin: null` of the page's own forms, and the guard refuses them.
  'referrer-policy': 'same-origin',
  'cache-control': 'no-store',
};

const files = { '/page.css': 'css', '/page.js': 'js' } as const;

/** `address` is where other dashboards find the peer link. */
export function pairingRoutes(receiver: Receiver, address: string): Middleware {
  const { pairing, peers, pin } = receiver;
  const router = new Router();

  function show(ctx: ParameterizedContext, alert?: string): void {
    ctx.type = 'html';
    ctx.body = page({
      ...{ pin, address, alert },
      closesInMs: pairing.closesInMs(),
      requests: pairing.requests(),
      peers: peers.list(),
    });
  }

  router.use(async (ctx, next) => {
    ctx.set(securityHeaders);
    await next();
  });
  router.get('/', (ctx) => show(ctx));
  for (const [path, type] of Object.entries(files)) {
    const text = readFileSync(new URL(`.${path}`, import.meta.url), 'utf8');
    router.get(path, (ctx) => {
      ctx.type = type;
      ctx.body = text;
    });
  }

  /** A form of the page. It answers with the page again, and with a message if the action failed. */
  function button(path: string, press: (field: (name: string) => string) => Promise<string> | string): void {
    router.post(path, async (ctx) => {
      const form = await formOf(ctx);
      let alert: string;
      try {
        alert = await press((name) => form.get(name) ?? '');
        ctx.status = alert === '' ? 303 : 409;
      } catch (error) {
        if (!isReceiverError(error)) throw error;
        ctx.status = statusOf[error.code] ?? 500;
        alert = error.message;
      }
      if (alert === '') ctx.redirect('/');
      else show(ctx, alert);
    });
  }

  button('/window/open', () => (pairing.open(), ''));
  button('/window/close', () => (pairing.close(), ''));
  button('/requests/approve', async (field) => {
    if (field('compared') !== 'yes') return 'Compare both fingerprints first and tick the box.';
    await pairing.approve(field('id'), field('pin'));
    return '';
  });
  button('/requests/reject', (field) => (pairing.reject(field('id')) ? '' : 'The request no longer exists.'));
  button('/peers/revoke', async (field) =>
    (await peers.revoke(field('id'))) ? '' : 'That dashboard is no longer paired.',
  );
  return router.routes() as unknown as Middleware;
}

async function formOf(ctx: ParameterizedContext): Promise<URLSearchParams> {
  let text = '';
  for await (const piece of ctx.req.setEncoding('utf8') as AsyncIterable<string>) {
    text += piece;
    if (text.length > maxFormBytes) ctx.throw(413);
  }
  return new URLSearchParams(text);
}
