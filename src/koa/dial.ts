/**
 * Connects to a peer link, for the client and for connect-backs, and says why no receiver answered: people mistype ports,
 * and meet firewalls, web servers and proxies, which all look the same to a socket.
 */
import { once } from 'node:events';
import { isIP } from 'node:net';
import { connect as connectTls } from 'node:tls';

import type * as ws from 'ws';

import { onAbort } from '../async/calls.js';
import { quote, ReceiverError, systemCode } from '../errors.js';
import { maxMessageBytes } from '../protocol/noise.js';
import type { Transport } from '../protocol/transport.js';
import { messageByMessage, peerLinkPath, WebSocket, wsTransport } from './ws-transport.js';

const connectTimeoutMs = 10_000;

export interface Where {
  readonly host: string;
  readonly port: number;
}

export interface DialOptions {
  /** The longest time for the connection, in milliseconds. Default: 10,000. */
  readonly timeoutMs?: number;
  /** The local address of the connection. Default: chosen by the system. */
  readonly localAddress?: string | undefined;
  /** Cancels the attempt; an open connection is not affected. */
  readonly signal?: AbortSignal;
}

/**
 * Connects to a receiver's peer link. Throws `PROTOCOL` when no receiver answers, with the {@link ConnectFailure} as
 * `facts.reason`; `OPTIONS` for an impossible host or port; `CANCELLED` on abort.
 */
export async function dial(where: Where, options: DialOptions = {}): Promise<Transport> {
  const { timeoutMs = connectTimeoutMs, localAddress, signal } = options;
  if (isAborted(signal)) throw cancelled();
  const attempt: Attempt = { isConnected: false, isTimedOut: false, status: undefined };
  const socket = openSocket(where, localAddress, attempt);
  const stopListening = onAbort(signal, () => socket.terminate());
  // The timeout of `ws` restarts with each received byte.
  const timer = setTimeout(() => {
    attempt.isTimedOut = true;
    socket.terminate();
  }, timeoutMs);
  try {
    // Taken over at once, or the first message could be lost.
    return await new Promise((resolve, reject) => {
      socket.once('open', () => resolve(wsTransport(socket, where.host)));
      socket.once('error', reject);
    });
  } catch (cause) {
    if (isAborted(signal)) throw cancelled();
    const reason = await failureOf(attempt, cause, () => speaksTls(where, options));
    const code = systemCode(cause);
    const text = failures[reason]
      .replace('{status}', String(attempt.status))
      .replace('{ms}', String(timeoutMs));
    const message = `no receiver answered at ${quote(`${where.host} port ${where.port}`)}: ${text}`;
    const { status } = attempt;
    throw new ReceiverError('PROTOCOL', message, { ...where, reason, code, status }, { cause });
  } finally {
    clearTimeout(timer);
    stopListening();
  }
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true;
}

function cancelled(): ReceiverError {
  return new ReceiverError('CANCELLED', 'the connection was cancelled');
}

/** What is known about a connection that is not open yet. */
interface Attempt {
  isConnected: boolean;
  isTimedOut: boolean;
  /** Of an HTTP response that is not an upgrade. */
  status: number | undefined;
}

function openSocket({ host, port }: Where, localAddress: string | undefined, attempt: Attempt): ws.WebSocket {
  const address = host.includes(':') ? `[${host}]` : host;
  try {
    return new WebSocket(`ws://${address}:${port}${peerLinkPath}`, {
      ...messageByMessage,
      maxPayload: maxMessageBytes,
      finishRequest(request) {
        request.once('socket', (wire) => wire.once('connect', () => (attempt.isConnected = true)));
        request.once('response', ({ statusCode }) => (attempt.status = statusCode));
        request.end();
      },
      ...(localAddress !== undefined && { localAddress }),
    });
  } catch (cause) {
    const message = `invalid address ${quote(`${host}:${port}`)}: expected a host and a port from 1 to 65535`;
    throw new ReceiverError('OPTIONS', message, { host, port }, { cause });
  }
}

/** Why no receiver answered: `facts.reason` of a `PROTOCOL` error of {@link dial}. */
export type ConnectFailure =
  | 'refused'
  | 'unknown_host'
  | 'unreachable'
  | 'silent'
  | 'tls'
  | 'web_server'
  | 'other_server'
  | 'hung_up'
  | 'failed';

/** What a person can do about each way in which no receiver answers. */
const failures: Readonly<Record<ConnectFailure, string>> = {
  refused: 'nothing listens there; check the port, and whether the build server is running',
  unknown_host: 'the host name cannot be resolved; check its spelling, or use an IP address',
  unreachable: 'the host cannot be reached; check the address, the network and any firewall',
  silent:
    'it accepted the connection and then sent nothing for {ms} ms; check the port, or restart the build server',
  tls: 'it expects TLS, which the peer link does not use; connect to the build server itself and not to a proxy',
  web_server:
    'a web server answered with HTTP status {status}; use the port of the peer link, by default 6055',
  other_server: 'another kind of server answered; check the port',
  hung_up: 'it closed the connection without an answer; check the port and the log of the build server',
  failed: 'the connection failed; the cause says why',
};

const failuresByCode: Readonly<Record<string, ConnectFailure>> = {
  ...{ ECONNREFUSED: 'refused', ENOTFOUND: 'unknown_host', EAI_AGAIN: 'unknown_host' },
  ...{
    EHOSTUNREACH: 'unreachable',
    ENETUNREACH: 'unreachable',
    ETIMEDOUT: 'unreachable',
    EHOSTDOWN: 'unreachable',
  },
  ...{ ECONNRESET: 'hung_up', EPIPE: 'hung_up' },
};

const badRequest = 400;

async function failureOf(
  { isConnected, isTimedOut, status }: Attempt,
  cause: unknown,
  asksForTls: () => Promise<boolean>,
): Promise<ConnectFailure> {
  if (isTimedOut) return isConnected ? 'silent' : 'unreachable';
  const code = systemCode(cause) ?? '';
  const known = failuresByCode[code];
  // Some TLS servers answer a plain request with an alert or with "400 Bad Request"; most hang up.
  if ((known === 'hung_up' || status === badRequest || code.startsWith('HPE_')) && (await asksForTls()))
    return 'tls';
  if (known !== undefined) return known;
  if (status !== undefined) return 'web_server';
  return isConnected ? 'other_server' : 'failed';
}

const tlsProbeMs = 2_000;

/** Tries TLS on a second connection, after the server did not understand the first. Never rejects. */
async function speaksTls(
  { host, port }: Where,
  { localAddress, signal }: Pick<DialOptions, 'localAddress' | 'signal'>,
): Promise<boolean> {
  const probe = connectTls({ host, port, rejectUnauthorized: false, ...(localAddress && { localAddress }) });
  const signals = [AbortSignal.timeout(tlsProbeMs), ...(signal ? [signal] : [])];
  try {
    await once(probe, 'secureConnect', { signal: AbortSignal.any(signals) });
    return true;
  } catch (error) {
    // The alert of a server that wants a certificate or another name.
    return systemCode(error)?.includes('ALERT') === true;
  } finally {
    probe.on('error', () => {}).destroy();
  }
}

/**
 * The local address for a connect-back to `to`: the dashboard looks for the receiver at the address that the call comes
 * from, so it must be `bound`. Undefined leaves the choice to the system: all addresses are bound, or `to` is of the other
 * IP family.
 */
export function callFrom(bound: string, to: string): string | undefined {
  const family = isIP(bound);
  const isAny = /^[0:.]+$/.test(bound);
  return family !== 0 && family === isIP(to) && !isAny ? bound : undefined;
}
