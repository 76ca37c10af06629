/**
 * JSON as the peer link has it: one object a message, strict UTF-8, in both directions something that the
 * other side's strict parser takes.
 *
 * Python's parser refuses a lone surrogate where JavaScript's writes one, and one such character in a line of
 * compiler output would end the session. Nesting is bounded, because `JSON.stringify` of a deep value (an echoed
 * nonce) overflows the stack.
 */
import { isUtf8 } from 'node:buffer';

export type JsonObject = Readonly<Record<string, unknown>>;

const maxDepth = 32;
const loneSurrogate = /\p{Surrogate}/u;

/**
 * The object in a message, or undefined: not UTF-8, a byte order mark, not JSON, not an object, nested more than
 * 32 deep, or a lone surrogate in any name or string. Of a name that comes twice the last wins. Never throws.
 */
export function decodeObject(bytes: Buffer): JsonObject | undefined {
  if (!isUtf8(bytes)) return undefined;
  const text = bytes.toString('utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  // In valid UTF-8 a lone surrogate can only come from an escape.
  const suspicious = text.includes('\\u');
  return isPlain(value, maxDepth, suspicious) ? (value as JsonObject) : undefined;
}

function isPlain(value: unknown, depthLeft: number, suspicious: boolean): boolean {
  if (typeof value === 'string') return !suspicious || !loneSurrogate.test(value);
  if (typeof value !== 'object' || value === null) return true;
  if (depthLeft === 0) return false;
  for (const [name, member] of Object.entries(value)) {
    if (suspicious && loneSurrogate.test(name)) return false;
    if (!isPlain(member, depthLeft - 1, suspicious)) return false;
  }
  return true;
}

/** Compact UTF-8 JSON. A lone surrogate in a string becomes U+FFFD; names must have none. */
export function encodeObject(value: object): Buffer {
  const text = JSON.stringify(value);
  if (!text.includes('\\ud')) return Buffer.from(text);
  return Buffer.from(
    JSON.stringify(value, (_name, member: unknown) =>
      typeof member === 'string' ? Buffer.from(member).toString() : member,
    ),
  );
}
