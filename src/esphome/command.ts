/**
 * Finds the machine's ESPHome and composes its command lines.
 *
 * The command is resolved to an absolute path, so that neither a build's working directory nor a later PATH can
 * substitute another program. An explicit command that does not exist gives null: a fallback to another ESPHome would
 * build with a version that nobody requested.
 */
import { delimiter, isAbsolute, join, resolve } from 'node:path';

import { isExecutable } from '../process/machine.js';
import { isReleaseAtLeast } from './version.js';

/** A program (absolute once resolved) and its leading arguments, as in `python -m esphome`. */
export type EsphomeCommand = readonly [string, ...string[]];

export interface FindOptions {
  /** The host's option: a path, a name on PATH, a command line without quoting, or its words. */
  readonly esphome?: string | readonly string[] | undefined;
  /** Uses `ESPHOME_COMMAND` (as `esphome`) and `PATH`. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Resolves the option, else `ESPHOME_COMMAND`, else `esphome`, to an absolute path; null if it does not exist. */
export async function findEsphome({
  esphome,
  environment: env,
}: FindOptions): Promise<EsphomeCommand | null> {
  const chosen = esphome ?? (env['ESPHOME_COMMAND'] || 'esphome');
  if (typeof chosen !== 'string') return locate(chosen, env);
  // Unsplit first, because a path can contain spaces.
  return (await locate([chosen], env)) ?? locate(chosen.split(/\s+/).filter(Boolean), env);
}

/** The command line of a compile. Releases before 2026.10 do not know `--skip-bootloader` and exit with 2. */
export function compileArgs(
  command: EsphomeCommand,
  yaml: string,
  { skipBootloader, version }: { readonly skipBootloader: boolean; readonly version: string },
): EsphomeCommand {
  const skips = skipBootloader && isReleaseAtLeast(version, [2026, 10]);
  return [...command, '--dashboard', 'compile', yaml, ...(skips ? ['--skip-bootloader'] : [])];
}

/** The command line that prints the validated configuration and writes nothing (ESPHome 2026.10). */
export function configArgs(command: EsphomeCommand, yaml: string): EsphomeCommand {
  // Log lines share the stream and could corrupt the YAML; errors are still printed.
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

/** Skips relative entries of PATH, because they mean another directory in every build. */
function candidates(program: string, path: string): string[] {
  if (/[\\/]/.test(program)) return [resolve(program)];
  return path
    .split(delimiter)
    .filter(isAbsolute)
    .map((directory) => join(directory, program));
}
