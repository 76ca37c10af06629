/**
 * The real ESPHome and the real Device Builder, the judges of this project, at the versions that it was written
 * for. Each is installed once into the user's cache, by the code that the receiver itself installs releases with.
 */
import { existsSync } from 'node:fs';
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { execa } from 'execa';

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

export const newestDeviceBuilder = '1.26.1b3';
/** Of those that were seen to work with this receiver. */
export const oldestDeviceBuilder = '1.6.10';
export const otherDeviceBuilders = [newestDeviceBuilder, oldestDeviceBuilder] as const;
export type OtherDeviceBuilder = (typeof otherDeviceBuilders)[number];

/** The command of another release: its own code, over the libraries and the ESPHome of {@link realDeviceBuilder}. */
export async function otherDeviceBuilder(
  version: OtherDeviceBuilder,
  options: PlaceOptions = {},
): Promise<EsphomeCommand> {
  const [program] = await realDeviceBuilder(options);
  const venv = dirname(dirname(program));
  const python = join(venv, 'bin', 'python');
  const directory = join(dirname(dirname(venv)), `device-builder-${version}-alone`);
  if (!existsSync(directory)) await installAlone(python, `esphome-device-builder==${version}`, directory);
  return ['/usr/bin/env', `PYTHONPATH=${directory}`, python, '-m', 'esphome_device_builder'];
}

/** Whole or not at all, since others may install it at the same time. */
async function installAlone(python: string, requirement: string, directory: string): Promise<void> {
  const unfinished = await mkdtemp(`${directory}-`);
  try {
    const pip = ['-m', 'pip', 'install', '--quiet', '--no-deps', '--target', unfinished, requirement];
    await execa(python, pip);
    await rename(unfinished, directory).catch((error: unknown) => {
      if (!existsSync(directory)) throw error;
    });
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
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
