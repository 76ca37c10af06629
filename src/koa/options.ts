/**
 * The options of a mounted receiver besides those of the core, declared in the same way, and the check of all of them
 * together, so that a misspelt name is compared with every known option.
 */
import { isIPv4 } from 'node:net';

import * as z from 'zod';

import { coreOptions, withAbsolutePaths } from '../options/core.js';
import { parseOptions } from '../options/parse.js';
import { option } from '../options/schema.js';
import type { Publisher } from './announce.js';
import type { Authorize } from './authorize.js';
import type { ReceiverOptions } from './receiver-options.js';

export const announceOptions = {
  httpPort: option(z.int().min(1).max(65_535).optional(), {
    summary: "Port on which a browser finds the host's dashboard.",
    defaultText: 'the port of the peer link',
    isPort: true,
  }),
  interface: option(z.string().refine(isIPv4).optional(), {
    summary:
      'IPv4 address of the network adapter on which the receiver is announced, with the addresses of that adapter.',
    defaultText: 'the adapter of the default route, with the addresses of all adapters',
    expected: 'an IPv4 address of this machine',
  }),
  publisher: option(z.custom<Publisher>(isPublisher).optional(), {
    summary: 'Publisher that sends the announcement.',
    defaultText: 'the package `bonjour-service`, which must be installed',
    type: 'Publisher',
    expected: 'an object with the functions publish and withdraw',
  }),
};

export const mountOptions = {
  authorize: option(z.custom<Authorize>((value) => typeof value === 'function').optional(), {
    summary:
      'Function that decides who can use the admin routes and events; a truthy result lets the request in.',
    details: 'An error that it throws becomes the answer to the request.',
    defaultText: 'requests from this machine, to a loopback name, are let in',
    type: 'Authorize',
    expected: 'a function of the context',
  }),
  prefix: option(
    z
      .string()
      .regex(/^(\/[A-Za-z0-9._~-]+)+$/)
      .default('/esphome-receiver'),
    {
      summary: 'Path of the admin routes and events.',
      expected: 'an absolute path such as "/builds"',
    },
  ),
  announce: option(z.union([z.boolean(), z.strictObject(announceOptions).readonly()]).default(false), {
    summary: 'Announces the receiver by mDNS, so that dashboards list it and find it at a new address.',
    details:
      'The announcement starts once `listen` has bound a port. It needs the package `bonjour-service`.',
    type: 'boolean | AnnounceOptions',
    expected: 'true, false or an object',
  }),
};

const schema = z.strictObject({ ...coreOptions, ...mountOptions });

/** Checks the options and fills in the defaults. Throws `OPTIONS`, naming the option. */
export function resolveReceiverOptions(options: ReceiverOptions) {
  return Object.freeze(withAbsolutePaths(parseOptions(schema, options)));
}

function isPublisher(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return ['publish', 'withdraw'].every((name) => typeof Reflect.get(value, name) === 'function');
}
