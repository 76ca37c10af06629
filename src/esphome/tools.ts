/**
 * Which of the shared tools a configuration builds with, as far as its text says, and where those lie. Two first
 * builds that install the same tools at once leave half of them, so a build has to know its tools beforehand.
 *
 * The text is looked at and not parsed, in one pass: a platform that a package brings is not seen.
 */
import { platformRows, type PlatformKey } from './platforms.js';

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
