/**
 * From what a host has set to what the parts read. Checked once, when the receiver is made: a value that cannot work is
 * refused then, and not hours later in the middle of somebody's build. The caller's object is never changed.
 */
import { resolve } from 'node:path';

import * as z from 'zod';

import { stateDirName } from '../paths/segments.js';
import type { CoreOptions, RetentionLimits } from './core-options.js';
import { coreOptions } from './core.js';
import { retentionLimits } from './limits.js';
import { parseOptions } from './parse.js';

const schema = z.strictObject(coreOptions);

export type ResolvedOptions = ReturnType<typeof resolveOptions>;

/** Checks the options and fills in the defaults. Throws `OPTIONS`, naming the option. */
export function resolveOptions(options: CoreOptions) {
  return Object.freeze(withAbsolutePaths(parseOptions(schema, options)));
}

/** The paths of the state are absolute from here on; those of the builds are resolved with the layout. */
export function withAbsolutePaths<O extends z.output<typeof schema>>(options: O) {
  const { configDir, stateDir = resolve(configDir, stateDirName), takeOver } = options;
  return {
    ...options,
    configDir: resolve(configDir),
    stateDir: resolve(stateDir),
    takeOver: takeOver === undefined ? undefined : resolve(takeOver),
  };
}

/** Without the defaults: what is not named stays as it is. */
const changes = z
  .strictObject(
    Object.fromEntries(Object.entries(retentionLimits).map(([name, limit]) => [name, limit.unwrap()])),
  )
  .partial();

/** The limits with some of them changed. Throws `OPTIONS`, naming the limit. */
export function changeRetention(limits: RetentionLimits, wanted: unknown): RetentionLimits {
  const given = Object.entries(parseOptions(changes, wanted)).filter(([, value]) => value !== undefined);
  return Object.freeze({ ...limits, ...Object.fromEntries(given) });
}
