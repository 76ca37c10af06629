/**
 * ESPHome's platforms and toolchains: the files that each build writes for its client, and the shared tools that it
 * needs. The tables are those of Device Builder 1.26, whose client requires these files, plus rows for builds that
 * Device Builder itself cannot deliver. A new platform needs only a new row.
 *
 * A build has to know its tools beforehand, because two first builds that install the same tools at once leave half of
 * them.
 */

import { isReleaseAtLeast } from './version.js';

export interface PlatformRow {
  /** Below the build path, in the order of the archive. `{name}` is the node's name. */
  readonly files: readonly string[];
  /** Files beside the firmware that the dashboard offers for download. */
  readonly downloads: readonly string[];
  /** A file beside the firmware that lists more downloads. */
  readonly downloadList?: string;
  /** The one of `files` that is executable. */
  readonly program?: string;
  /** Files beside the firmware. The first that exists replaces a missing file at `firmware_bin_path`. */
  readonly insteadOfFirmware?: readonly string[];
}

const inEnvironment = (...files: readonly string[]): readonly string[] =>
  files.map((file) => `.pioenvs/{name}/${file}`);

const libreTiny: PlatformRow = {
  files: inEnvironment('firmware.uf2', 'firmware.bin', 'raw_firmware.elf', 'firmware.json'),
  downloads: ['firmware.uf2'],
  downloadList: 'firmware.json',
};

export const platformRows = {
  esp32: {
    files: [
      ...inEnvironment('firmware.bin', 'firmware.elf', 'firmware.factory.bin', 'firmware.ota.bin'),
      ...inEnvironment('bootloader.bin', 'partitions.bin', 'ota_data_initial.bin'),
      ...['build/firmware.factory.bin', 'build/{name}.bin', 'build/firmware.elf'],
      ...['build/bootloader/bootloader.bin', 'build/partition_table/partition-table.bin'],
      'build/ota_data_initial.bin',
    ],
    downloads: ['firmware.factory.bin', 'firmware.ota.bin'],
  },
  esp8266: {
    // Device Builder sends only the first two; the native toolchain's USB upload requires the factory image.
    files: inEnvironment('firmware.bin', 'firmware.elf', 'firmware.factory.bin', 'firmware.ota.bin'),
    downloads: ['firmware.bin'],
  },
  rp2: {
    files: inEnvironment('firmware.bin', 'firmware.uf2', 'firmware.ota.bin', 'firmware.elf'),
    downloads: ['firmware.uf2', 'firmware.ota.bin'],
  },
  bk72xx: libreTiny,
  rtl87xx: libreTiny,
  ln882x: libreTiny,
  nrf52: {
    files: [
      ...inEnvironment('firmware.bin', 'firmware.elf', 'zephyr/zephyr.uf2', 'firmware.zip'),
      ...inEnvironment(
        'zephyr/zephyr.hex',
        'zephyr/merged.hex',
        'zephyr/app_update.bin',
        // The first of these that exists is sent. The decoding of crashes needs it; SDK 2.9.2 writes the deeper one.
        'zephyr/zephyr/zephyr.elf',
        'zephyr/zephyr.elf',
      ),
    ],
    downloads: [],
    // The native toolchain does not write the firmware.bin that the client requires. Substitutes: the update image,
    // the plain image of SDK 2.9.2 and later, then that of older SDKs. Not tested on a device.
    insteadOfFirmware: ['zephyr/app_update.bin', 'zephyr/zephyr/zephyr.bin', 'zephyr/zephyr.bin'],
  },
  host: {
    files: inEnvironment('program'),
    downloads: [],
    program: '.pioenvs/{name}/program',
  },
} as const satisfies Readonly<Record<string, PlatformRow>>;

export type PlatformKey = keyof typeof platformRows;

/** The row for a sidecar's `esp_platform`, which can be a variant such as `ESP32C6`; null for an unknown one. */
export function platformRow(espPlatform: string | null): PlatformRow | null {
  const key = platformKey(espPlatform);
  return key === null ? null : platformRows[key];
}

/** The family of `esp_platform`, case-insensitive. Older releases wrote `rp2040` for `rp2`. */
export function platformKey(espPlatform: string | null): PlatformKey | null {
  const name = espPlatform?.toLowerCase() ?? '';
  if (name === 'rp2040') return 'rp2';
  if (Object.hasOwn(platformRows, name)) return name as PlatformKey;
  return name.startsWith('esp32') ? 'esp32' : null;
}

export type FirmwareOffset = '0x10000' | '0x0';

export function firmwareOffset(espPlatform: string | null): FirmwareOffset {
  return platformKey(espPlatform) === 'esp32' ? '0x10000' : '0x0';
}

/**
 * `required`: the client requires it and ESPHome writes it. `optional`: sent if it exists. `supplied`: a client (Device
 * Builder 1.26.0; 1.26.1 no longer) requires it and not every ESPHome writes it, so a missing one is sent empty.
 */
export type Need = 'required' | 'optional' | 'supplied';

export interface ToolchainRow {
  readonly idedata: Need;
  readonly platformioIni: Need;
}

const platformio: ToolchainRow = { idedata: 'required', platformioIni: 'required' };

const toolchainRows: ReadonlyMap<string, ToolchainRow> = new Map<string, ToolchainRow>([
  ['platformio', platformio],
  ['esp-idf', { idedata: 'optional', platformioIni: 'optional' }],
  ['arduino', { idedata: 'required', platformioIni: 'optional' }],
  ['sdk-nrf', { idedata: 'supplied', platformioIni: 'supplied' }],
  ['host', { idedata: 'supplied', platformioIni: 'supplied' }],
]);

/** The row for a sidecar's `toolchain`. An unknown or missing one counts as PlatformIO, as in the client. */
export function toolchainRow(toolchain: string | null): ToolchainRow {
  return toolchainRows.get(toolchain ?? '') ?? platformio;
}

/** Subdirectories of the tools directory; a build's environment names them. */
export const toolNames = {
  espIdf: 'idf',
  sdkNrf: 'sdk-nrf',
  arduino8266: 'arduino8266',
  platformio: 'platformio',
  host: 'host',
  ccache: 'ccache',
  home: 'home',
} as const;

/** The directories by their public names. */
export const toolchains: ReadonlyMap<string, string> = new Map([
  ['esp-idf', toolNames.espIdf],
  ...Object.values(toolNames)
    .filter((name) => name !== toolNames.espIdf)
    .map((name) => [name, name] as const),
]);

/** Directories without tools, whose content is optional. Any build can use them. */
export const cacheNames: readonly string[] = [toolNames.ccache, toolNames.home, toolNames.host];

/** Which tools a configuration asks for. */
export interface BuildTarget {
  /** Null if it is unknown: a package defines it, or the configuration chooses its own tools. */
  readonly platform: PlatformKey | null;
  readonly framework: string;
  /** As the configuration names it; `default` is the choice of ESPHome, which depends on its release. */
  readonly toolchain: string;
  /** The settings that select further tools, such as the version of the framework; equal for equal tools. */
  readonly selection: string;
}

const platformNames = [...Object.keys(platformRows), 'rp2040'];
const platformLine = new RegExp(`^(["']?)(${platformNames.join('|')})\\1[ \\t]*:(?:[ \\t]|$)`);
/** As in ESPHome 2026.10; `arduino` for the others. */
const defaultFrameworks: Partial<Record<PlatformKey, string>> = {
  esp32: 'esp-idf',
  nrf52: 'zephyr',
  host: 'host',
};

/** A setting that decides which tools are used, with its value if that is plain text. */
const toolSetting =
  /(?:^|[\s{,])["']?(type|toolchain|variant|board|version|platform_version|source|<<)["']?[ \t]*:(?:[ \t]*["']?([\w.+-]{1,64})["']?[ \t]*(?=$|[,}]))?/g;
const frameworks = new Set(['arduino', 'esp-idf', 'zephyr']);
/** Values that leave the choice to ESPHome. */
const usual = new Set(['recommended', 'platformio_default']);

/** A line at the margin of a plain configuration; any other can be inside a text of several lines. */
const marginLine = /^(?:["']?[\w.$<{}-]+["']?[ \t]*:(?:[ \t]|$)|-(?:[ \t]|$)|---|\.\.\.|[\]}])/;
/** A value from elsewhere, a text of several lines, a tag, an explicit key, an escape, a line end of YAML alone. */
const notPlain = /(?:^|[:,-][ \t]|[{[,])[ \t]*[*&!|>]|^[ \t-]*\?[ \t]|[\\\x85\u2028\u2029]/;

/** Whether one line below a platform's key tells all about its settings. */
function isPlain(text: string): boolean {
  if (notPlain.test(text)) return false;
  if (countOf(text, '"') % 2 !== 0 || countOf(text, "'") % 2 !== 0) return false;
  // Otherwise it continues the value above.
  return /:(?:[ \t]|$)|^[ \t]*-|[[\]{}]/.test(text);
}

function countOf(text: string, character: string): number {
  return text.split(character).length - 1;
}

/**
 * Reads a platform's top-level key and the settings below it that select tools. It scans the text in one pass and does
 * not parse YAML, so it misses a platform that a package defines; `platform` is then null. It is also null for tools
 * from a source of their own, for a setting that is not plain text, and for YAML that a scan of lines could misread: a
 * wrong guess would let a build replace tools that another one reads.
 */
export function readTarget(yaml: string): BuildTarget {
  const found = new Map<string, string>();
  let platform: PlatformKey | null = null;
  let framework: string | undefined;
  let isUnknown = yaml.includes('platform_packages');
  /** The indentation of `components:`, whose entries have sources that are not tools. */
  let components = Infinity;
  let openBrackets = 0;
  let isInside = false;
  for (const [line] of yaml.matchAll(/[^\r\n]+/g)) {
    let rest = line;
    if (/^[^\s#]/.test(line)) {
      isInside = false;
      if (!marginLine.test(line)) isUnknown = true;
      const start = platformLine.exec(line);
      if (start === null) continue;
      // ESPHome takes one platform only.
      if (platform !== null) isUnknown = true;
      isInside = true;
      platform = start[2] === 'rp2040' ? 'rp2' : (start[2] as PlatformKey);
      rest = line.slice(start[0].length).trim();
      if (/^[^#{]/.test(rest)) isUnknown = true;
    }
    if (!isInside) continue;
    const text = rest.replace(/(?:^|\s)#.*$/, '');
    if (/[\x85\u2028\u2029]/.test(rest)) isUnknown = true;
    if (text.trim() === '') continue;
    if (!isPlain(text)) isUnknown = true;
    for (const bracket of text.match(/[[\]{}]/g) ?? []) openBrackets += '[{'.includes(bracket) ? 1 : -1;
    const indentation = /^[\s-]*/.exec(line)![0].length;
    if (indentation <= components) components = /^\s*components:\s*$/.test(text) ? indentation : Infinity;
    if (components !== Infinity) continue;
    for (const [, name = '', value] of text.matchAll(toolSetting)) {
      if (name === 'type' && value !== undefined) framework ??= frameworks.has(value) ? value : undefined;
      else if (value === undefined || name === 'source' || name === '<<') isUnknown = true;
      else if (!usual.has(value)) found.set(name, value);
    }
  }
  const toolchain = found.get('toolchain') ?? 'default';
  found.delete('toolchain');
  // Boards select tools on ESP32 only, where they stand for a chip.
  if (platform !== 'esp32' || found.has('variant')) found.delete('board');
  const selection = Array.from(found, (setting) => setting.join('='))
    .toSorted()
    .join(' ');
  framework ??= (platform && defaultFrameworks[platform]) ?? 'arduino';
  return { platform: isUnknown || openBrackets !== 0 ? null : platform, framework, toolchain, selection };
}

const nativeDirectories: Partial<Record<PlatformKey, string>> = {
  esp32: toolNames.espIdf,
  esp8266: toolNames.arduino8266,
  nrf52: toolNames.sdkNrf,
};

/** Those of {@link toolNames} that a platform's toolchains install into (ESPHome 2026.10; `host`: older releases). */
export function toolDirectories(platform: PlatformKey): readonly string[] {
  const own = nativeDirectories[platform];
  return own === undefined ? [toolNames.platformio] : [own, toolNames.platformio];
}

/** Those that one build can write to; `platform` is null if unknown. Without caches. */
export function buildDirectories(
  platform: PlatformKey | null,
  { toolchain, version }: { readonly toolchain: string; readonly version: string },
): readonly string[] {
  if (platform === null) return Object.values(toolNames).filter((name) => !cacheNames.includes(name));
  if (toolchain === 'platformio') return [toolNames.platformio];
  // For esp8266 the default depends on the board.
  const isNative =
    toolchain !== 'default' || (platform !== 'esp8266' && isReleaseAtLeast(version, [2026, 10]));
  const own = nativeDirectories[platform];
  return own !== undefined && isNative ? [own] : toolDirectories(platform);
}
