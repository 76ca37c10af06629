/**
 * Reads StorageJSON, the sidecar in which ESPHome records what a build is and where it is (ESPHome 2026.10).
 *
 * ESPHome writes it before the first source, so its presence proves a validation, not a build. Old releases and a
 * peer's code write other values into it; a value of the wrong type counts as missing.
 */
import { readRegular } from '../disk/open-regular.js';
import { ReceiverError, isReceiverError, systemCode } from '../errors.js';
import { parseJsonObject, stringOrNull, type JsonObject } from '../disk/json-file.js';

export interface StorageJson {
  /** `esphome.name`: names the build directory and the idedata. */
  readonly name: string | null;
  readonly friendlyName: string | null;
  readonly comment: string | null;
  /** Null when the wizard wrote the file and nothing was compiled. */
  readonly esphomeVersion: string | null;
  readonly srcVersion: number | null;
  readonly address: string | null;
  readonly webPort: number | null;
  /** Upper case; for the esp32 family the variant. `HOST`, `ESP32S3`, `RP2`. */
  readonly espPlatform: string | null;
  /** Absolute, as {@link StorageJson.firmwareBinPath}. Not checked: it can be anywhere. */
  readonly buildPath: string | null;
  readonly firmwareBinPath: string | null;
  readonly loadedIntegrations: readonly string[];
  readonly loadedPlatforms: readonly string[];
  readonly noMdns: boolean;
  readonly framework: string | null;
  readonly corePlatform: string | null;
  readonly toolchain: string | null;
  readonly area: string | null;
  readonly frameworkVersion: string | null;
  /** The file's bytes, which clients get unchanged. */
  readonly raw: Buffer;
}

const maxBytes = 1024 * 1024;

/** Throws `STORAGE`; the facts hold the path and as `fault` `missing`, `unreadable` or `damaged`. */
export async function loadStorage(path: string): Promise<StorageJson> {
  return parseStorage(await readOf('the sidecar of the build', path, maxBytes), path);
}

/** Throws `STORAGE` unless the bytes are a JSON object with a `storage_version`. */
export function parseStorage(raw: Buffer, path?: string): StorageJson {
  const object = parseJsonObject(raw);
  if (object === null || !object.has('storage_version')) {
    throw new ReceiverError('STORAGE', 'the sidecar of the build is damaged', { path, fault: 'damaged' });
  }
  const text = (key: string): string | null => stringOrNull(object.get(key));
  return Object.freeze({
    name: text('name'),
    friendlyName: text('friendly_name'),
    comment: text('comment'),
    esphomeVersion: text(object.has('esphome_version') ? 'esphome_version' : 'esphomeyaml_version'),
    srcVersion: numberOf(object, 'src_version'),
    address: text('address'),
    webPort: numberOf(object, 'web_port'),
    espPlatform: text('esp_platform'),
    buildPath: pathOf(object, 'build_path'),
    firmwareBinPath: pathOf(object, 'firmware_bin_path'),
    loadedIntegrations: listOf(object, 'loaded_integrations'),
    loadedPlatforms: listOf(object, 'loaded_platforms'),
    noMdns: object.get('no_mdns') === true,
    framework: text('framework'),
    corePlatform: text('core_platform'),
    toolchain: text('toolchain'),
    area: text('area'),
    frameworkVersion: text('framework_version'),
    raw,
  });
}

function numberOf(object: JsonObject, key: string): number | null {
  const value = object.get(key);
  return typeof value === 'number' ? value : null;
}

/** Old releases wrote the word `None` for an unset path. */
function pathOf(object: JsonObject, key: string): string | null {
  const value = stringOrNull(object.get(key));
  return value === 'None' ? null : value;
}

function listOf(object: JsonObject, key: string): readonly string[] {
  const value = object.get(key);
  return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];
}

/** Reads one of ESPHome's files; `what` names it in the error. Throws `STORAGE` as {@link loadStorage}. */
export async function readOf(what: string, path: string, limitBytes: number): Promise<Buffer> {
  try {
    return await readRegular(path, limitBytes);
  } catch (cause) {
    const code = systemCode(cause);
    const isMissing = code === 'ENOENT' || code === 'ENOTDIR';
    const reason = isReceiverError(cause) ? cause.message : code;
    const how = isMissing ? 'is missing' : `cannot be read (${reason ?? 'internal error'})`;
    const fault = isMissing ? 'missing' : 'unreadable';
    throw new ReceiverError('STORAGE', `${what} ${how}`, { path, fault }, { cause });
  }
}
