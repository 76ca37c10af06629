/**
 * Parses a bundle's `manifest.json`, as `esphome bundle` writes it (ESPHome 2026.10).
 *
 * ESPHome's own reader joins `config_filename` to the directory and only checks that the file exists, so
 * `../../../own.yaml` compiles the receiver's configuration with the receiver's secrets. Here it must be a plain file
 * name; the unpacker checks that the bundle contains it.
 */
import { ReceiverError, quote } from '../errors.js';
import { fileName, type FileName } from '../paths/index.js';
import { parseJsonObject, stringOrNull } from '../disk/json-file.js';

export const manifestFile = 'manifest.json';

export interface Manifest {
  readonly manifestVersion: 1;
  readonly configFilename: FileName;
  /** The ESPHome that made the bundle, if the manifest says so. */
  readonly esphomeVersion: string | null;
}

/**
 * Ignores unknown and informational keys. Throws `BUNDLE` unless the bytes are a JSON object with version 1 and a plain
 * file name.
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  const object = parseJsonObject(bytes);
  if (object === null) throw new ReceiverError('BUNDLE', 'the manifest is not a JSON object');
  const version = object.get('manifest_version');
  if (version !== 1) {
    const shown = typeof version === 'number' ? String(version) : quote(version);
    throw new ReceiverError('BUNDLE', `unsupported manifest version ${shown}: expected 1`);
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
    const message = `invalid configuration name ${quote(value)} in the manifest: expected a plain YAML file name`;
    throw new ReceiverError('BUNDLE', message, {}, { cause });
  }
}
