/**
 * An ESPHome of exactly the version that is asked for, installed on demand: the firmware of a device must not depend
 * on which release the build server happens to have.
 */
import { join } from 'node:path';

import { ReceiverError, isReceiverError, quote } from '../errors.js';
import type { EsphomeCommand } from './command.js';
import { provisionVenv, type PlaceOptions } from './venv.js';
import { isPinnable } from './version.js';

export interface ProvisionOptions extends PlaceOptions {
  /** A release or an a/b/rc pre-release: Device Builder 1.26 asks for no other either. */
  readonly version: string;
}

/**
 * The command of an ESPHome release, which is installed from PyPI first where it is not there yet (1 to 2 minutes).
 * Throws PROVISION when that fails, and for a version that is not a plain release or a/b/rc; CANCELLED on abort.
 */
export async function provisionEsphome(options: ProvisionOptions): Promise<EsphomeCommand> {
  const { version, ...rest } = options;
  if (!isPinnable(version)) {
    throw new ReceiverError('PROVISION', `ESPHome ${quote(version)} is not a release that can be installed`);
  }
  try {
    const directory = await provisionVenv({
      ...rest,
      name: venvName(version),
      requirement: `esphome==${version}`,
      check: ['esphome', 'version'],
      expect: version,
    });
    return [join(directory, 'bin', 'esphome')];
  } catch (error) {
    throw explained(error);
  }
}

const namePrefix = 'esphome-';

/** The name of a release's environment. */
export function venvName(version: string): string {
  return namePrefix + version;
}

/** The release of an environment; null for another name. */
export function venvVersion(name: string): string | null {
  const version = name.slice(namePrefix.length);
  return name.startsWith(namePrefix) && isPinnable(version) ? version : null;
}

/** What pip says in many lines, in a few words for the user of another machine. */
const pipSays: readonly (readonly [RegExp, string])[] = [
  [/No space left on device/, 'its disk is full'],
  [/Requires-Python|requires a different Python/, 'it needs another Python'],
  [
    /NameResolutionError|ConnectionError|Max retries exceeded|Read timed out/,
    'the package index cannot be reached',
  ],
  [/No matching distribution found for esphome==/, 'there is no such release'],
];

function explained(error: unknown): unknown {
  if (!isReceiverError(error, 'PROVISION')) return error;
  const { output } = error.facts;
  const words = typeof output === 'string' && pipSays.find(([pattern]) => pattern.test(output))?.[1];
  return !words ? error : new ReceiverError('PROVISION', words, error.facts, { cause: error });
}
