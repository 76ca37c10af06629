/**
 * The JSON of the peer link: one object per message in strict UTF-8, which the other side's strict parser accepts. Python
 * refuses a lone surrogate where JavaScript writes one, so one such character in a line of compiler output would end the
 * session. Nesting is limited, because `JSON.stringify` overflows the stack on a deep value such as an echoed nonce.
 */
import { isAscii, isUtf8 } from 'node:buffer';

export type WireObject = Readonly<Record<string, unknown>>;

const maxDepth = 32;
const loneSurrogate = /\p{Surrogate}/u;

/**
 * The object in a message. Undefined for invalid UTF-8, a byte order mark, anything but a JSON object, nesting deeper than
 * 32, or a lone surrogate in a name or string. The last of repeated names wins. A long `data_b64` can contain control
 * characters, which the base64 decoder then refuses. Never throws.
 */
export function decodeObject(bytes: Buffer): WireObject | undefined {
  return decodeChunk(bytes) ?? decodeAny(bytes);
}

/** A `data_b64` of this length or more is cut out of its message before the rest is parsed. */
const longData = 4_096;
const dataName = 'data_b64';
const dataStart = `"${dataName}":"`;

/** For a flat object with a long `data_b64` and no escape: parsing the data as well takes longer than decrypting it. */
function decodeChunk(bytes: Buffer): WireObject | undefined {
  const at = bytes.indexOf(dataStart, 0, 'latin1');
  const from = at + dataStart.length;
  const to = at < 0 ? -1 : bytes.indexOf('"', from, 'latin1');
  if (to - from < longData || !isAscii(bytes)) return undefined;
  const rest = bytes.toString('latin1', 0, from) + bytes.toString('latin1', to);
  const data = bytes.toString('latin1', from, to);
  const isFlat = rest.lastIndexOf('{') === 0 && !rest.includes('[');
  if (!isFlat || rest.lastIndexOf(dataName) !== at + 1 || rest.includes('\\') || data.includes('\\'))
    return undefined;
  const value = parse(rest);
  return typeof value === 'object' && value !== null ? { ...value, [dataName]: data } : undefined;
}

function decodeAny(bytes: Buffer): WireObject | undefined {
  if (!isUtf8(bytes)) return undefined;
  const text = bytes.toString('utf8');
  const value = parse(text);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  // In valid UTF-8, only an escape can produce a lone surrogate.
  const suspicious = text.includes('\\u');
  return isPlain(value, maxDepth, suspicious) ? (value as WireObject) : undefined;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
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

/**
 * Compact UTF-8 JSON. A lone surrogate in a string becomes U+FFFD; names must have none. A long `data_b64` must be valid
 * base64, because it is copied unchecked: `JSON.stringify` would take four times as long as its encryption.
 */
export function encodeObject(value: object): Buffer {
  if (!hasLongData(value)) return Buffer.from(stringify(value));
  const { data_b64: data, ...rest } = value;
  return Buffer.from(`${stringify(rest).slice(0, -1)},"data_b64":"${data}"}`);
}

function hasLongData(value: object): value is { readonly type: string; readonly data_b64: string } {
  if (!('type' in value && 'data_b64' in value)) return false;
  return typeof value.data_b64 === 'string' && value.data_b64.length >= longData;
}

function stringify(value: object): string {
  const text = JSON.stringify(value);
  if (!text.includes('\\ud')) return text;
  return JSON.stringify(value, (_name, member: unknown) =>
    typeof member === 'string' ? Buffer.from(member).toString() : member,
  );
}
