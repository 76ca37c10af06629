/**
 * `manifest.json` of a bundle, as `esphome bundle` writes it (ESPHome 2026.10).
 *
 * ESPHome's own reader joins `config_filename` to the directory and only asks whether the file is there, so
 * `../../../own.yaml` compiles the receiver's configuration with the receiver's secrets. Here it must be a plain
 * file name; that it names a member of the bundle is the unpacker's check.
 */
import { ReceiverError, quote } from '../errors.js';
import { fileName, type FileName } from '../paths/index.js';
import { parseJsonObject, stringOrNull } from '../disk/json.js';

export const manifestFile = 'manifest.json';

export interface Manifest {
  /** The only version there is. */
  readonly manifestVersion: 1;
  readonly configFilename: FileName;
  /** The ESPHome that made the bundle; null when it does not say. */
  readonly esphomeVersion: string | null;
}

/**
 * Reads a manifest. Keys that it does not know, and those that only inform, are ignored.
 * Throws `BUNDLE` when the bytes are no JSON object, the version is not 1 or the name is not a plain one.
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  const object = parseJsonObject(bytes);
  if (object === null) throw new ReceiverError('BUNDLE', 'the manifest is not a JSON object');
  const version = object.get('manifest_version');
  if (version !== 1) {
    const shown = typeof version === 'number' ? String(version) : quote(version);
    throw new ReceiverError('BUNDLE', `the manifest's version must be 1 and is ${shown}`);
  }
  return Object.freeze({
    manifestVersion: version,
    configFilename: configFilename(object.get('config_filename')),
    esphomeVersion: stringOrNull(object.get('esphome_version')),
  });
}

function configFilename(value: unknown): FileName {
  try {
    return fileName(value);
  } catch (cause) {
    throw new ReceiverError(
      'BUNDLE',
      `the manifest names no usable configuration: ${quote(value)}`,
      {},
      { cause },
    );
  }
}
