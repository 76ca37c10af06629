/**
 * ESPHome's JSON files, read without trust: a peer's code may have written them. A Map, so that a key such as
 * `__proto__` is a key like any other.
 */

export type JsonObject = ReadonlyMap<string, unknown>;

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The value of a JSON text, in UTF-8 where it is bytes; undefined when it is none. Never throws. */
export function parseJson(text: Uint8Array | string): unknown {
  try {
    return JSON.parse(typeof text === 'string' ? text : decoder.decode(text)) as unknown;
  } catch {
    return undefined;
  }
}

/** The members of a JSON object in UTF-8, or null for anything else. Never throws. */
export function parseJsonObject(bytes: Uint8Array): JsonObject | null {
  return asObject(parseJson(bytes));
}

/** The members of a parsed value that is an object and no array, else null. */
export function asObject(value: unknown): JsonObject | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null;
  return new Map(Object.entries(value));
}

export function stringOrNull(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}
