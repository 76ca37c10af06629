/** The command line of an example. A mistake on it is answered by a sentence and the usage, never by a stack trace. */
import { parseArgs, type ParseArgsConfig } from 'node:util';

import { ReceiverError } from 'koa-esphome-receiver';

/** Ends the process with 2 for a flag that is unknown or lacks its value. */
export function readArgs<const T extends ParseArgsConfig>(
  usage: string,
  config: T,
): ReturnType<typeof parseArgs<T>> {
  try {
    return parseArgs(config);
  } catch (error) {
    if (!String((error as { code?: unknown }).code).startsWith('ERR_PARSE_ARGS_')) throw error;
    console.error(`\n${(error as Error).message}\n${usage}`);
    return process.exit(2);
  }
}

/** Throws `OPTIONS` for anything but a port. */
export function portOf(flag: string, text: string): number {
  const port = /^\d+$/.test(text) ? Number(text) : NaN;
  if (port <= 65_535) return port;
  const message = `invalid --${flag}: expected an integer from 0 to 65535, got ${JSON.stringify(text)}`;
  throw new ReceiverError('OPTIONS', message);
}
