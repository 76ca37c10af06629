/**
 * The real ESPHome and the real Device Builder, the judges of this project, at the versions that it was written
 * for. Each is installed once into the user's cache, by the code that the receiver itself installs releases with.
 */
import { join } from 'node:path';

import type { EsphomeCommand } from '../../src/esphome/command.js';
import { provisionEsphome } from '../../src/provision/releases.js';
import { type PlaceOptions, provisionVenv } from '../../src/provision/venv.js';

export const esphomeVersion = '2026.10.0';
/** The newest older one that compiles a `host:` configuration without a registry: 2026.9 takes PlatformIO for it. */
export const olderVersion = '2026.10.0b6';
const deviceBuilderVersion = '1.26.0';

/** The command `esphome`. Takes 1 to 2 minutes the first time on a machine, a quarter of a second later. */
export async function realEsphome(options: PlaceOptions = {}): Promise<EsphomeCommand> {
  return provisionEsphome({ ...options, version: esphomeVersion });
}

/** The same of {@link olderVersion}. */
export async function olderEsphome(options: PlaceOptions = {}): Promise<EsphomeCommand> {
  return provisionEsphome({ ...options, version: olderVersion });
}

/** The command `esphome-device-builder`, with an ESPHome of its own beside it. */
export async function realDeviceBuilder(options: PlaceOptions = {}): Promise<EsphomeCommand> {
  const directory = await provisionVenv({
    ...options,
    name: `device-builder-${deviceBuilderVersion}`,
    requirement: `esphome-device-builder[esphome]==${deviceBuilderVersion}`,
    check: ['esphome-device-builder', '--version'],
    expect: deviceBuilderVersion,
  });
  return [join(directory, 'bin', 'esphome-device-builder')];
}
