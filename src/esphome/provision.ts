/**
 * An ESPHome of exactly the version that is asked for, installed on demand: the firmware of a device must not depend
 * on which release the build server happens to have.
 */
import { join } from 'node:path';

import { ReceiverError, quote } from '../errors.js';
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
  const directory = await provisionVenv({
    ...rest,
    name: `esphome-${version}`,
    requirement: `esphome==${version}`,
    check: ['esphome', 'version'],
    expect: version,
  });
  return [join(directory, 'bin', 'esphome')];
}
