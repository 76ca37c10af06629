/**
 * Turns external strings into path segments; no other module does.
 *
 * An accepted string has a branded type, and only branded types are joined to a path. Dangerous strings are refused and
 * never repaired: a repaired name would reach another file than its sender meant, and two senders' names could reach
 * the same file.
 */
import { createHash } from 'node:crypto';

import { TraversalError } from '../errors.js';

declare const brand: unique symbol;

/** The id that a peer chose for itself: 8 to 64 of `A-Z a-z 0-9 _ -`. Also the name of the peer's directory. */
export type DashboardId = string & { readonly [brand]: 'DashboardId' };
/** The directory of one device of one peer. Lower-case ASCII, at most 63 characters. */
export type DeviceSegment = string & { readonly [brand]: 'DeviceSegment' };
/** The leaf name of a YAML file that passed {@link fileName}. */
export type FileName = string & { readonly [brand]: 'FileName' };

const idShape = /^[A-Za-z0-9_-]{8,64}$/;
const plainFile = /^([a-z0-9][a-z0-9_-]{0,62})\.yaml$/;
const plainDevice = /^[a-z0-9][a-z0-9_-]{0,62}$/;
const hashedDevice = /^_[0-9a-f]{32}$/;
const yamlEnding = /\.ya?ml$/i;

/** Separators and the characters that Windows reserves. */
const reservedSign = /[/\\:*?"<>|]/;
/** Controls, and the line and paragraph separators of Unicode. */
const control = /[\p{Cc}\p{Zl}\p{Zp}]/u;
/** Invisible characters: joiners, fillers, direction marks, variation selectors, and every space but the plain one. */
const invisible = /[\p{Cf}\p{Default_Ignorable_Code_Point}]|[^\P{Zs} ]/u;
/** The longest name on Linux file systems. */
export const maxNameBytes = 255;

/** Checks a peer's id. Throws {@link TraversalError}. */
export function dashboardId(text: unknown): DashboardId {
  if (typeof text !== 'string' || !idShape.test(text)) {
    throw new TraversalError('the dashboard id', text, '8 to 64 characters of A-Z a-z 0-9 _ - are allowed');
  }
  return text as DashboardId;
}

/**
 * Checks the leaf name of a YAML file: accepts what Device Builder does, except `secrets.yaml` and what
 * {@link nameFault} refuses. Throws {@link TraversalError}.
 */
export function fileName(text: unknown): FileName {
  if (typeof text === 'string' && plainFile.test(text) && !isReservedFile(text)) return text as FileName;
  const fault = fileFault(text);
  if (fault !== null) throw new TraversalError('the file name', text, fault);
  return text as FileName;
}

function isReservedFile(folded: string): boolean {
  return isWindowsDevice(folded) || neverConfigurations.has(folded);
}

function fileFault(text: unknown): string | null {
  if (typeof text !== 'string') return 'expected a string';
  const fault = nameFault(text);
  if (fault !== null) return fault;
  if (!yamlEnding.test(text)) return 'expected a name that ends in .yaml or .yml';
  return neverConfigurations.has(text.normalize('NFKC').toLowerCase())
    ? 'it holds secrets, not a device'
    : null;
}

/** The rule that a file's or directory's name breaks, or null. Linear in the length, and bounded. */
export function nameFault(text: string): string | null {
  if (text === '') return 'the name is empty';
  if (text.length > maxNameBytes || Buffer.byteLength(text) > maxNameBytes)
    return `the name is longer than ${maxNameBytes} bytes`;
  if (control.test(text)) return 'control characters and line ends are not allowed';
  if (/\p{Cs}/u.test(text)) return 'unpaired surrogates are not allowed';
  if (reservedSign.test(text)) return 'the characters / \\ : * ? " < > | are not allowed';
  if (invisible.test(text)) return 'invisible and direction characters are not allowed';
  if (looksLikeSeparator.test(text)) return 'characters that look like a separator are not allowed';
  if (/^[.-]/.test(text)) return 'a name must not begin with a dot or a dash';
  if (/[. ]$/.test(text)) return 'a name must not end in a dot or a space';
  if (hidesTraversal(text)) return 'encoded separators and dots are not allowed';
  const folded = text.normalize('NFKC').toLowerCase();
  if (/[/\\:]/.test(folded)) return 'characters that look like a separator are not allowed';
  if (/^\.|[. ]$/.test(folded))
    return 'characters that look like a leading or a trailing dot are not allowed';
  return isWindowsDevice(folded) ? 'device names of Windows are not allowed' : null;
}

const encoded = /%u([0-9a-f]{4})|%([0-9a-f]{2})|&#x([0-9a-f]{1,6});?|&#([0-9]{1,7});?/gi;
/** Bytes of an ASCII character in overlong UTF-8. */
const overlong = /%c[01]|%e0%[89]|%f0%8/i;
const maxDecodings = 3;

/**
 * Whether decoding turns a segment into a separator, a control or a dot segment: percent forms, also double-encoded, as
 * `%u002f` or in overlong UTF-8, and HTML's numeric forms. False for `100%.yaml` and `50%41.yaml`.
 */
export function hidesTraversal(segment: string): boolean {
  if (!/[%&]/.test(segment)) return false;
  if (overlong.test(segment)) return true;
  let text = segment;
  for (let round = 0; round < maxDecodings; round += 1) {
    text = text.replace(encoded, (form, u?: string, percent?: string, hex?: string, decimal?: string) => {
      const code = decimal === undefined ? parseInt(u ?? percent ?? hex ?? '', 16) : Number(decimal);
      return code <= 0x10ffff ? String.fromCodePoint(code) : form;
    });
  }
  if (text === segment) return false;
  return /[/\\:]/.test(text) || control.test(text) || looksLikeSeparator.test(text) || /^[. ]/.test(text);
}

/**
 * The device segment of a YAML file name: the stem for a plain lower-case `stem.yaml`, else `_` and 128 bits of the
 * hash of the whole name. So no two names share a directory on any file system, and no build path contains a space or
 * a letter outside ASCII, where ESP-IDF cannot compile. Throws {@link TraversalError}.
 */
export function deviceFromFile(file: string): DeviceSegment {
  const name = fileName(file);
  const plain = plainFile.exec(name);
  if (plain) return plain[1] as DeviceSegment;
  return `_${createHash('sha256').update(name).digest('hex').slice(0, 32)}` as DeviceSegment;
}

/** Checks the name of a device's directory. Throws {@link TraversalError}. */
export function deviceSegment(text: string): DeviceSegment {
  const plain = plainDevice.test(text) && !isReservedFile(`${text}.yaml`);
  if (!plain && !hashedDevice.test(text)) {
    throw new TraversalError('the device', text, 'expected the name of a device directory');
  }
  return text as DeviceSegment;
}

const nodeNameShape = /^[A-Za-z0-9_-]{1,128}$/;

/** Checks the sidecar's `esphome.name`, which the peer's code controls, before use in a path. Throws {@link TraversalError}. */
export function nodeName(text: unknown): string {
  if (typeof text !== 'string' || !nodeNameShape.test(text)) {
    throw new TraversalError('the node name', text, 'only A-Z a-z 0-9 _ - are allowed');
  }
  return text;
}

/** The directory below `.esphome` in every remote configuration string. */
export const buildsDirName = '.remote_builds';

/** The receiver's key and peers, beside the configurations. */
export const stateDirName = '.esphome-receiver';

/** ESPHome's own directory beside the configurations. */
export const esphomeDirName = '.esphome';

/**
 * Windows has device names in every directory, with any extension and in any case, so a file `aux.yaml` accepted on
 * Linux would be the serial port on a Windows machine with the same volume.
 */
const windowsDevices = new Set([
  ...['con', 'prn', 'aux', 'nul', 'conin$', 'conout$', 'clock$'],
  ...['com', 'lpt'].flatMap((port) => Array.from({ length: 10 }, (_, n) => `${port}${n}`)),
]);

/** ESPHome skips these in a compile, exits with 0 and builds nothing (ESPHome 2026.10). */
const neverConfigurations = new Set(['secrets.yaml', 'secrets.yml']);

/**
 * Characters that a person, or a careless normaliser, takes for a slash or a backslash, except those with such a
 * compatibility form, for instance the full-width ones.
 */
export const looksLikeSeparator =
  /[\u0337\u0338\u2044\u20e5\u20eb\u2215\u2216\u29f5\u29f8\u29f9\u2cc6\u3033-\u3035\u4e36\u4e3f\ua4f8\ua4fa\u{1d16d}]/u;

/** Whether a segment in lower case and compatibility form is a Windows device. */
export function isWindowsDevice(folded: string): boolean {
  const dot = folded.indexOf('.');
  return windowsDevices.has((dot < 0 ? folded : folded.slice(0, dot)).trimEnd());
}

/** A short file name, unique for these words, which can contain any characters. */
export function hashName(...words: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(words)).digest('hex').slice(0, 40);
}
