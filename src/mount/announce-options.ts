/** What a host may wish of the announcement, checked when the receiver is made and not when its port is bound. */
import { isIPv4 } from 'node:net';

import * as z from 'zod';

import { ReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import type { Publisher } from './announce.js';
import { loadBonjour } from './bonjour.js';

export interface AnnounceOptions {
  /** The port on which a browser finds the host's dashboard. Default: the one of the peer link. */
  readonly httpPort?: number | undefined;
  /**
   * The IPv4 address of the one network in which the receiver is announced, with the addresses of that adapter.
   * Default: the network of the default route, with all addresses.
   */
  readonly interface?: string | undefined;
  /** What speaks mDNS. Default: the package `bonjour-service`, which must be installed then. */
  readonly publisher?: Publisher | undefined;
}

export interface AnnounceWish {
  readonly httpPort: number | undefined;
  readonly via: string | undefined;
  makePublisher(log: Log): Publisher;
}

const schema = z.strictObject({
  httpPort: z.int().min(1).max(65_535).optional(),
  interface: z.string().refine(isIPv4, 'an IPv4 address of this machine is needed').optional(),
  publisher: z.custom<Publisher>(isPublisher, 'a publisher needs publish and withdraw').optional(),
});

/** Null when nothing is to be announced. Throws `OPTIONS`, also when the library is needed and not installed. */
export async function readAnnounce(option: boolean | AnnounceOptions = false): Promise<AnnounceWish | null> {
  if (option === false) return null;
  const result = schema.safeParse(option === true ? {} : option);
  if (!result.success) {
    throw new ReceiverError('OPTIONS', `announce: ${z.prettifyError(result.error)}`);
  }
  const { httpPort, interface: via, publisher } = result.data;
  if (publisher !== undefined) return { httpPort, via, makePublisher: () => publisher };
  const createPublisher = await loadBonjour();
  return { httpPort, via, makePublisher: (log) => createPublisher({ via, log }) };
}

function isPublisher(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return ['publish', 'withdraw'].every((name) => typeof Reflect.get(value, name) === 'function');
}
