/**
 * Who can use the admin routes and events. Without a hook, only requests from this machine pass, addressed to a loopback
 * name and not through a proxy. Otherwise a foreign page in the operator's browser, a rebound host name or a neighbour on
 * the network could approve its own pairing request, and an approved peer runs code here.
 */
import { isIP } from 'node:net';
import type { IncomingMessage } from 'node:http';

import type { Context } from 'koa';

/** Decides about one request; any truthy result allows it. An error that it throws answers the request. */
export type Authorize = (ctx: Context) => unknown;

/** Null when the request is allowed; otherwise the status and message of the refusal. */
export async function refusal(
  ctx: Context,
  authorize: Authorize | undefined,
): Promise<{ readonly status: 401 | 403; readonly message: string } | null> {
  if (isForeignOrigin(ctx.req)) return { status: 403, message: 'requests from other sites are refused' };
  if (authorize !== undefined) {
    return (await authorize(ctx))
      ? null
      : { status: 401, message: 'not authorised: an operator is required' };
  }
  if (isLocalRequest(ctx.req)) return null;
  const message = 'refused: without an authorize hook, admin requests are accepted from this machine only';
  return { status: 403, message };
}

/** Browsers send the origin of the page with every cross-site request that can change something. */
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

/** An attacker's rebound name resolves to loopback too, but the Host header still contains that name. */
function namesLoopback(host: string): boolean {
  const name = host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
  return name === 'localhost' || isLoopback(name);
}
