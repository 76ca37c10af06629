/** Lets in people who know the password, and keeps out pages of other sites in their browsers. */
import { createHash, timingSafeEqual } from 'node:crypto';

import type { Context, Middleware } from 'koa';

type Asking = Pick<Context, 'get' | 'method' | 'protocol' | 'host'>;

/** Checks HTTP Basic credentials with any user name. The comparison takes the same time for every wrong password. */
export function operatorCheck(password: string): (ctx: Asking) => boolean {
  const wanted = digest(password);
  return (ctx) => {
    const credentials = /^Basic ([A-Za-z0-9+/=]+)$/i.exec(ctx.get('authorization'))?.[1];
    if (credentials === undefined) return false;
    const given = Buffer.from(credentials, 'base64').toString('utf8').split(':').slice(1).join(':');
    return timingSafeEqual(digest(given), wanted);
  };
}

/** In front of everything else of the application. */
export function guard(isOperator: (ctx: Asking) => boolean): Middleware {
  return async (ctx, next) => {
    if (!isOperator(ctx)) {
      ctx.set('www-authenticate', 'Basic realm="ESPHome", charset="UTF-8"');
      ctx.status = 401;
    } else if (isFromOwnPage(ctx)) await next();
    else ctx.throw(403, 'requests from other sites are refused');
  };
}

/** A browser sends the password along with a form of another site, and names that site when it does. */
function isFromOwnPage(ctx: Asking): boolean {
  if (ctx.method === 'GET' || ctx.method === 'HEAD') return true;
  const site = ctx.get('sec-fetch-site');
  const origin = ctx.get('origin');
  if (site !== '' && site !== 'same-origin' && site !== 'none') return false;
  return origin === '' || origin === `${ctx.protocol}://${ctx.host}`;
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
