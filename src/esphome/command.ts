/**
 * Which ESPHome this machine has, and the exact words that start it.
 *
 * The command is resolved to an absolute path, so that neither the working directory of a build nor a PATH
 * that changes later can put another program in its place. An explicit wish that leads nowhere is answered by
 * "none": falling back to some other ESPHome would build with a version that nobody asked for.
 */
import { delimiter, isAbsolute, join, resolve } from 'node:path';

import { isExecutable } from '../process/session.js';
import { isReleaseAtLeast } from './version.js';

/** A program (absolute once resolved) and the words that always follow it, as in `python -m esphome`. */
export type EsphomeCommand = readonly [string, ...string[]];

export interface FindOptions {
  /** The host's wish: a path, a name on PATH, a command line without quoting, or its words. */
  readonly esphome?: string | readonly string[] | undefined;
  /** Read: `ESPHOME_COMMAND` (as `esphome`), `PATH`. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** The first of the option, `ESPHOME_COMMAND` and `esphome` that is given, made absolute; null when it does not exist. */
export async function findEsphome({
  esphome,
  environment: env,
}: FindOptions): Promise<EsphomeCommand | null> {
  const wish = esphome ?? (env['ESPHOME_COMMAND'] || 'esphome');
  if (typeof wish !== 'string') return locate(wish, env);
  // As it stands first: a path may hold spaces.
  return (await locate([wish], env)) ?? locate(wish.split(/\s+/).filter(Boolean), env);
}

/** The command line of a compile. `--skip-bootloader` is unknown before the 2026.10 line, and ends it with 2 there. */
export function compileArgs(
  command: EsphomeCommand,
  yaml: string,
  { skipBootloader, version }: { readonly skipBootloader: boolean; readonly version: string },
): EsphomeCommand {
  const skips = skipBootloader && isReleaseAtLeast(version, [2026, 10]);
  return [...command, '--dashboard', 'compile', yaml, ...(skips ? ['--skip-bootloader'] : [])];
}

/** The command line that shows the validated configuration and writes nothing (ESPHome 2026.10). */
export function configArgs(command: EsphomeCommand, yaml: string): EsphomeCommand {
  // Log lines on the same stream could tear the YAML apart; errors still show.
  return [...command, '--log-level', 'ERROR', 'config', yaml];
}

async function locate(
  words: readonly string[],
  env: FindOptions['environment'],
): Promise<EsphomeCommand | null> {
  const [program, ...rest] = words;
  if (program === undefined || program === '') return null;
  for (const candidate of candidates(program, env['PATH'] ?? '')) {
    if (await isExecutable(candidate)) return [candidate, ...rest];
  }
  return null;
}

/** A relative entry of PATH would mean another directory in every build, so it is looked past. */
function candidates(program: string, path: string): string[] {
  if (/[\\/]/.test(program)) return [resolve(program)];
  return path
    .split(delimiter)
    .filter(isAbsolute)
    .map((directory) => join(directory, program));
}
