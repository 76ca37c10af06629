/**
 * idedata: what ESPHome notes about a compiler and about the images of a build (ESPHome 2026.10). PlatformIO and
 * the native toolchains write two shapes under one name; only PlatformIO's lists the images besides the firmware.
 */
import { ReceiverError } from '../errors.js';
import { asObject, parseJsonObject, stringOrNull } from './json-object.js';
import { readOf } from './storage-json.js';

export interface FlashImage {
  /** As written, for example `0x1000`. */
  readonly offset: string;
  /** Absolute. Not checked: it may lie anywhere. */
  readonly path: string;
}

export interface Idedata {
  /** The ELF. */
  readonly progPath: string | null;
  readonly ccPath: string | null;
  readonly flashImages: readonly FlashImage[];
  /** The file, byte for byte. */
  readonly raw: Buffer;
}

/** Lists of defines and include directories make it long. */
const maxBytes = 16 * 1024 * 1024;

/** Reads an idedata file. Throws `STORAGE` with `fault` among the facts: `missing`, `unreadable` or `damaged`. */
export async function loadIdedata(path: string): Promise<Idedata> {
  const raw = await readOf('the idedata of the build', path, maxBytes);
  const object = parseJsonObject(raw);
  if (object === null) {
    throw new ReceiverError('STORAGE', 'the idedata of the build is damaged', { path, fault: 'damaged' });
  }
  return Object.freeze({
    progPath: stringOrNull(object.get('prog_path')),
    ccPath: stringOrNull(object.get('cc_path')),
    flashImages: flashImages(asObject(object.get('extra'))?.get('flash_images')),
    raw,
  });
}

function flashImages(value: unknown): readonly FlashImage[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((item: unknown) => {
    const image = asObject(item);
    const offset = image?.get('offset');
    const path = image?.get('path');
    return typeof offset === 'string' && typeof path === 'string' ? [{ offset, path }] : [];
  });
}
