/**
 * Strings from outside to path segments: the only place where that happens.
 *
 * What is accepted here is a branded type, and only branded types are joined to a path. Everything dangerous is
 * refused and nothing is repaired: a name that is quietly mended reaches another file than the one its sender
 * meant, and two senders' names may then reach the same one.
 */
import { createHash } from 'node:crypto';

import { TraversalError } from '../errors.js';

declare const brand: unique symbol;

/** The id that a peer chose for itself: 8 to 64 of `A-Z a-z 0-9 _ -`. Names the peer's directory. */
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

/** Separators and signs that Windows keeps for itself. */
const reservedSign = /[/\\:*?"<>|]/;
/** Controls, and the line and paragraph separators of Unicode. */
const control = /[\p{Cc}\p{Zl}\p{Zp}]/u;
/** Characters without a picture: joiners, fillers, direction marks, variation selectors, and every space but the plain one. */
const invisible = /[\p{Cf}\p{Default_Ignorable_Code_Point}]|[^\P{Zs} ]/u;
/** The longest name that Linux file systems take. */
export const maxNameBytes = 255;

/** Checks a peer's id. Throws {@link TraversalError}. */
export function dashboardId(text: unknown): DashboardId {
  if (typeof text !== 'string' || !idShape.test(text)) {
    throw new TraversalError('the dashboard id', text, '8 to 64 characters of A-Z a-z 0-9 _ - are allowed');
  }
  return text as DashboardId;
}

/**
 * Checks the leaf name of a YAML file: whatever Device Builder takes, except what {@link nameFault} refuses and
 * `secrets.yaml`. Throws {@link TraversalError}.
 */
export function fileName(text: unknown): FileName {
  if (typeof text === 'string' && plainFile.test(text) && !isReservedFile(text)) return text as FileName;
  const fault = fileFault(text);
  if (fault !== null) throw new TraversalError('the file name', text, fault);
  return text as FileName;
}

function isReservedFile(folded: string): boolean {
  return isWindowsDevice(folded) || isNeverConfiguration(folded);
}

function fileFault(text: unknown): string | null {
  if (typeof text !== 'string') return 'expected a string';
  const fault = nameFault(text);
  if (fault !== null) return fault;
  if (!yamlEnding.test(text)) return 'expected a name that ends in .yaml or .yml';
  return isNeverConfiguration(text.normalize('NFKC').toLowerCase()) ? 'it holds secrets, not a device' : null;
}

/** The rule that a single name (of a file or a directory) breaks, or null. Linear in the length, and bounded. */
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
/** Bytes that spell a character of ASCII in UTF-8 longer than it may be. */
const overlong = /%c[01]|%e0%[89]|%f0%8/i;
const maxDecodings = 3;

/**
 * Whether a segment becomes a separator, a control or a dot segment for somebody who decodes it: percent forms, also
 * encoded again, as `%u002f` or in too long a UTF-8, and the numeric forms of HTML. `100%.yaml` and `50%41.yaml` do not.
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
 * The device segment of a YAML file name: the stem itself for a plain lower-case `stem.yaml`, else `_` and 128
 * bits of the hash of the whole name. So two names share a directory on no file system, whatever it folds, and
 * no build path holds a space or a letter outside ASCII, in which ESP-IDF cannot compile.
 * Throws {@link TraversalError}.
 */
export function deviceFromFile(file: string): DeviceSegment {
  const name = fileName(file);
  const plain = plainFile.exec(name);
  if (plain) return plain[1] as DeviceSegment;
  return `_${createHash('sha256').update(name).digest('hex').slice(0, 32)}` as DeviceSegment;
}

/** Checks a segment that claims to be a device's directory. Throws {@link TraversalError}. */
export function deviceSegment(text: string): DeviceSegment {
  const plain = plainDevice.test(text) && !isReservedFile(`${text}.yaml`);
  if (!plain && !hashedDevice.test(text)) {
    throw new TraversalError('the device', text, 'it is not a name that a device directory can have');
  }
  return text as DeviceSegment;
}

const nodeNameShape = /^[A-Za-z0-9_-]{1,128}$/;

/**
 * Checks `esphome.name` as it stands in a sidecar before it becomes part of a path: the sidecar is written by
 * code that the peer controls. Throws {@link TraversalError}.
 */
export function nodeName(text: unknown): string {
  if (typeof text !== 'string' || !nodeNameShape.test(text)) {
    throw new TraversalError('the node name', text, 'only A-Z a-z 0-9 _ - are allowed');
  }
  return text;
}

/**
 * The names that no segment from outside may have, listed once.
 *
 * Windows gives device names to every directory, with any extension and in any case, so a file `aux.yaml`
 * accepted on Linux would be the serial port on the next machine that sees the same volume.
 */

/** `.remote_builds`, the directory below `.esphome` that every remote configuration string names. */
export const buildsDirName = '.remote_builds';

/** The receiver's key and peers, beside the configurations. */
export const stateDirName = '.esphome-receiver';

/** ESPHome's own directory beside the configurations. */
export const esphomeDirName = '.esphome';

const windowsDevices = new Set([
  ...['con', 'prn', 'aux', 'nul', 'conin$', 'conout$', 'clock$'],
  ...['com', 'lpt'].flatMap((port) => Array.from({ length: 10 }, (_, n) => `${port}${n}`)),
]);

/** ESPHome skips these when it is asked to compile them, exits 0 and builds nothing (ESPHome 2026.10). */
const neverConfigurations = new Set(['secrets.yaml', 'secrets.yml']);

/**
 * Characters that a person, or a careless normaliser, takes for a slash or a backslash. The full-width and other
 * compatibility forms are not among them: those are found by their compatibility form.
 */
export const looksLikeSeparator =
  /[\u0337\u0338\u2044\u20e5\u20eb\u2215\u2216\u29f5\u29f8\u29f9\u2cc6\u3033-\u3035\u4e36\u4e3f\ua4f8\ua4fa\u{1d16d}]/u;

/** Whether a segment, already folded to lower case and compatibility form, is a device of Windows. */
export function isWindowsDevice(folded: string): boolean {
  const dot = folded.indexOf('.');
  return windowsDevices.has((dot < 0 ? folded : folded.slice(0, dot)).trimEnd());
}

/** Whether a folded file name can never be the main file of a build. */
function isNeverConfiguration(folded: string): boolean {
  return neverConfigurations.has(folded);
}

/** A short file name, the same for the same words and no others: it does not matter what the words hold. */
export function hashName(...words: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(words)).digest('hex').slice(0, 40);
}
