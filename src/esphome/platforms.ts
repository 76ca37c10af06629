/**
 * What a build of each platform leaves for its client, and which files each toolchain writes: the tables that
 * Device Builder 1.26 has, so that its client finds what it demands, and rows for the builds that Device Builder
 * itself cannot deliver. Data only; a new platform of ESPHome's is a new row.
 */

export interface PlatformRow {
  /** Below the build path, in the order of the archive. `{name}` is the node's name. */
  readonly files: readonly string[];
  /** Files beside the firmware that the dashboard offers for download. */
  readonly downloads: readonly string[];
  /** A file beside the firmware that lists more of them. */
  readonly downloadList?: string;
  /** The one of `files` that is a program to run. */
  readonly program?: string;
  /** Beside the firmware: the first that exists stands in when the build has no file at `firmware_bin_path`. */
  readonly insteadOfFirmware?: readonly string[];
}

const inEnvironment = (...files: readonly string[]): readonly string[] =>
  files.map((file) => `.pioenvs/{name}/${file}`);

const libreTiny: PlatformRow = {
  files: inEnvironment('firmware.uf2', 'firmware.bin', 'firmware.elf', 'firmware.json'),
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
    // Device Builder sends the first two only; the native toolchain's upload over USB demands the factory image.
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
      ...inEnvironment(
        'firmware.bin',
        'firmware.elf',
        'zephyr/zephyr.uf2',
        'firmware.zip',
        'zephyr/zephyr.hex',
      ),
      ...inEnvironment('zephyr/merged.hex', 'zephyr/app_update.bin', 'zephyr/zephyr.elf'),
    ],
    downloads: [],
    // The native toolchain writes no firmware.bin, which the client demands. The image for updates comes first,
    // then the plain one where SDK 2.9.2 and later put it, then where older ones do. Not tried on a device.
    insteadOfFirmware: ['zephyr/app_update.bin', 'zephyr/zephyr/zephyr.bin', 'zephyr/zephyr.bin'],
  },
  host: {
    files: inEnvironment('program'),
    downloads: [],
    program: '.pioenvs/{name}/program',
  },
} as const satisfies Readonly<Record<string, PlatformRow>>;

export type PlatformKey = keyof typeof platformRows;

/** The row for `esp_platform` of a sidecar, which holds a variant such as `ESP32C6`; null when there is none. */
export function platformRow(espPlatform: string | null): PlatformRow | null {
  const key = platformKey(espPlatform);
  return key === null ? null : platformRows[key];
}

/** The family of `esp_platform`, in any case; `rp2040` is what older releases wrote for `rp2`. */
export function platformKey(espPlatform: string | null): PlatformKey | null {
  const name = espPlatform?.toLowerCase() ?? '';
  if (name === 'rp2040') return 'rp2';
  if (Object.hasOwn(platformRows, name)) return name as PlatformKey;
  return name.startsWith('esp32') ? 'esp32' : null;
}

/** Where a browser flasher puts the firmware. */
export type FirmwareOffset = '0x10000' | '0x0';

export function firmwareOffset(espPlatform: string | null): FirmwareOffset {
  return platformKey(espPlatform) === 'esp32' ? '0x10000' : '0x0';
}

/**
 * `required`: the client refuses an archive without it, and ESPHome writes it. `optional`: sent when it is there.
 * `supplied`: the client demands it and ESPHome writes none, so an empty one is sent instead.
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
  ['sdk-nrf', { idedata: 'supplied', platformioIni: 'required' }],
  ['host', { idedata: 'supplied', platformioIni: 'supplied' }],
]);

/** The row for `toolchain` of a sidecar. An unknown one and none count as PlatformIO, as on the client's side. */
export function toolchainRow(toolchain: string | null): ToolchainRow {
  return toolchainRows.get(toolchain ?? '') ?? platformio;
}

/**
 * Which of the shared tools a configuration builds with, as far as its text says, and where those lie. Two first
 * builds that install the same tools at once leave half of them, so a build has to know its tools beforehand.
 *
 * The text is looked at and not parsed, in one pass: a platform that a package brings is not seen.
 */

/** Directories below that of all tools; the environment of a build names them. */
export const toolNames = {
  espIdf: 'idf',
  sdkNrf: 'sdk-nrf',
  arduino8266: 'arduino8266',
  platformio: 'platformio',
  host: 'host',
  ccache: 'ccache',
  home: 'home',
} as const;

/** The directories by the names that people know them by. */
export const toolchains: ReadonlyMap<string, string> = new Map([
  ['esp-idf', toolNames.espIdf],
  ...Object.values(toolNames)
    .filter((name) => name !== toolNames.espIdf)
    .map((name) => [name, name] as const),
]);

/** Where nothing is installed; what builds find there they can do without. Any build may use them. */
export const cacheNames: readonly string[] = [toolNames.ccache, toolNames.home, toolNames.host];

export interface BuildTarget {
  /** Null when the text does not say. */
  readonly platform: PlatformKey | null;
  readonly framework: string;
}

const platformNames = [...Object.keys(platformRows), 'rp2040'];
const platformLine = new RegExp(`^(["']?)(${platformNames.join('|')})\\1[ \\t]*:(?:[ \\t]|$)`);
/** Not in a comment. */
const frameworkWord = /^[^#]*?\btype:[ \t]*["']?(arduino|esp-idf|zephyr)\b/;
/** Where the text names none (ESPHome 2026.10); `arduino` for the others. */
const defaultFrameworks: Partial<Record<PlatformKey, string>> = {
  esp32: 'esp-idf',
  nrf52: 'zephyr',
  host: 'host',
};

/** The top-level key that is a platform's, and the framework's `type:` below it. */
export function readTarget(yaml: string): BuildTarget {
  let platform: PlatformKey | null = null;
  for (const line of yaml.split(/\r?\n/)) {
    if (platform === null) {
      const name = platformLine.exec(line)?.[2];
      if (name === undefined) continue;
      platform = name === 'rp2040' ? 'rp2' : (name as PlatformKey);
    } else if (/^[^\s#]/.test(line)) {
      break;
    }
    const framework = frameworkWord.exec(line)?.[1];
    if (framework !== undefined) return { platform, framework };
  }
  return { platform, framework: (platform && defaultFrameworks[platform]) ?? 'arduino' };
}

/**
 * Those of {@link toolNames} that a platform's builds install into, with either of its toolchains (ESPHome
 * 2026.10); of `host`, before that release.
 */
export function toolDirectories(platform: PlatformKey): readonly string[] {
  const native: Partial<Record<PlatformKey, string>> = {
    esp32: toolNames.espIdf,
    esp8266: toolNames.arduino8266,
    nrf52: toolNames.sdkNrf,
  };
  const own = native[platform];
  return own === undefined ? [toolNames.platformio] : [own, toolNames.platformio];
}

/** All that a build may use; null where its platform is not known. */
export function usedDirectories(platform: PlatformKey | null): readonly string[] {
  if (platform === null) return Object.values(toolNames);
  return [...toolDirectories(platform), ...cacheNames];
}
