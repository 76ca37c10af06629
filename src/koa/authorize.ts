/**
 * Who may use the admin surface.
 *
 * Without a hook only this machine itself, spoken to by its loopback name and not through a proxy: a page from
 * elsewhere in the operator's browser, a rebound host name or a neighbour on the network could otherwise approve
 * its own pairing request, and an approved peer runs code here.
 */
import { isIP } from 'node:net';
import type { IncomingMessage } from 'node:http';

import type { Context } from 'koa';

/** Decides about one request; any truthy answer lets it in. What it throws is the answer to the request. */
export type Authorize = (ctx: Context) => unknown;

/** Null when the request may pass, else the status and the sentence to refuse it with. */
export async function refusal(
  ctx: Context,
  authorize: Authorize | undefined,
): Promise<{ readonly status: 401 | 403; readonly message: string } | null> {
  if (isForeignOrigin(ctx.req)) return { status: 403, message: 'requests from other sites are refused' };
  if (authorize !== undefined) {
    return (await authorize(ctx)) ? null : { status: 401, message: 'this needs an authorised operator' };
  }
  if (isLocalRequest(ctx.req)) return null;
  return { status: 403, message: 'without an authorize hook the admin surface answers this machine only' };
}

/** A browser names the page's origin on every cross-site request that could change something. */
function isForeignOrigin(request: IncomingMessage): boolean {
  const site = request.headers['sec-fetch-site'];
  if (site !== undefined && site !== 'same-origin' && site !== 'none') return true;
  const { origin } = request.headers;
  if (origin === undefined) return false;
  try {
    return new URL(origin).host !== request.headers.host;
  } catch {
    return true;
  }
}

const proxyHeaders = [
  ...['forwarded', 'via', 'x-real-ip', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto'],
  ...['x-ingress-path', 'cf-connecting-ip'],
];

function isLocalRequest(request: IncomingMessage): boolean {
  const { headers } = request;
  if (proxyHeaders.some((name) => name in headers)) return false;
  return isLoopback(request.socket.remoteAddress ?? '') && namesLoopback(headers.host ?? '');
}

function isLoopback(address: string): boolean {
  const bare = address.replace(/^::ffff:/i, '');
  return bare === '::1' || (isIP(bare) === 4 && bare.startsWith('127.'));
}

/** A rebound name of the attacker's resolves to loopback too, but the Host header still spells it. */
function namesLoopback(host: string): boolean {
  const name = host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
  return name === 'localhost' || isLoopback(name);
}
