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
export function isNeverConfiguration(folded: string): boolean {
  return neverConfigurations.has(folded);
}
