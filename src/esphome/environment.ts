/**
 * The environment of a build: what a compiler started for a peer may see of this machine.
 *
 * A local configuration keeps the host's environment as it is. A remote one gets an allow-list of it, then pins.
 * So the build cannot leave its data directory by a variable (`ESPHOME_IS_HA_ADDON` outranks `ESPHOME_DATA_DIR`
 * and once sent every remote build of an add-on to `/data`), and a peer's YAML cannot read the host's secrets
 * with `!env_var`. It is deterministic, because a changed environment costs ESPHome a full rebuild.
 */
import { join } from 'node:path';

import { ReceiverError } from '../errors.js';
import type { Paths } from '../paths/index.js';
import { toolNames } from './platforms.js';

export type Environment = Readonly<Record<string, string>>;

/** Read from the host when set. Everything else of the host's environment stays outside. */
const inherited = [
  ...['PATH', 'TZ'],
  ...['http_proxy', 'https_proxy', 'no_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY'],
  ...['SSL_CERT_FILE', 'SSL_CERT_DIR', 'REQUESTS_CA_BUNDLE', 'GIT_SSL_CAINFO'],
] as const;

const defaultPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * An operator's own limits of compilers at once. Empty or without a number they break every build (ESPHome 2026.10).
 * The first is part of the configuration's hash: the client then sees a device as changed when it computes the hash
 * by itself. So it is taken from the host where it is set, and never set by us.
 */
const compilerLimits = ['ESPHOME_DEFAULT_COMPILE_PROCESS_LIMIT', 'IDF_PY_BUILD_JOBS'] as const;

/** The same for every build: how ESPHome 2026.10 and its children shall print, and what they shall not write. */
const fixed: Environment = {
  CLICOLOR_FORCE: '1',
  FORCE_COLOR: '1',
  PLATFORMIO_FORCE_ANSI: 'true',
  PYTHONIOENCODING: 'utf-8',
  // Packages of the account's, which one build could plant for the next.
  PYTHONNOUSERSITE: '1',
  PYTHONUNBUFFERED: '1',
  PYTHONUTF8: '1',
  // Without it a compile dies where the configuration's directory is read-only.
  ESPHOME_NOGITIGNORE: '1',
};

export interface EnvironmentOptions {
  readonly paths: Pick<Paths, 'parseConfiguration' | 'resolveDataDir' | 'layout'>;
  /** The host's environment, usually `process.env`. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Names of further variables that remote builds may see. Default: none. */
  readonly passEnvironment?: readonly string[];
  /**
   * How many compilers a remote build may run at once where ESPHome has a way to say so that changes nothing else:
   * native ESP-IDF builds. At least 1; null for the build tool's own choice. A limit of the host's own wins.
   */
  readonly compilers?: number | null;
}

/**
 * Makes `composeEnvironment`: the complete environment of a configuration's compile. For a remote one the result
 * is the same for the same input, byte for byte and in order. Throws `TRAVERSAL` for a configuration that is
 * refused and `OPTIONS` for an inherited value that holds a NUL or a line end.
 */
export function createEnvironment(options: EnvironmentOptions): (configuration: string) => Environment {
  const { paths, environment: hostEnvironment, compilers = null } = options;
  const pass = new Set(options.passEnvironment);
  const names = new Set<string>([...inherited, ...pass]);

  return function composeEnvironment(configuration) {
    if (paths.parseConfiguration(configuration) === null) return definedOnly(hostEnvironment);
    const environment = new Map<string, string>([['PATH', defaultPath]]);
    for (const name of names) {
      const value = hostEnvironment[name];
      if (value === undefined || value === '') continue;
      if (holdsCredentials(name, value) && !pass.has(name)) continue;
      environment.set(name, checked(name, value));
    }
    if (compilers !== null) environment.set('IDF_PY_BUILD_JOBS', String(compilers));
    for (const name of compilerLimits) {
      const value = hostEnvironment[name] ?? '';
      if (/^[1-9]\d{0,3}$/.test(value)) environment.set(name, value);
    }
    for (const [name, value] of Object.entries(fixed)) environment.set(name, value);
    for (const [name, value] of pinned(paths.resolveDataDir(configuration), paths.layout.toolchainsDir)) {
      environment.set(name, value);
    }
    return Object.fromEntries([...environment].toSorted(([a], [b]) => (a < b ? -1 : 1)));
  };
}

function definedOnly(environment: Readonly<Record<string, string | undefined>>): Environment {
  const entries = Object.entries(environment).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as Environment;
}

/** A proxy with a user name in it is a secret of the host's, unless the operator names it in `passEnvironment`. */
function holdsCredentials(name: string, value: string): boolean {
  return /_proxy$/i.test(name) && value.includes('@');
}

function checked(name: string, value: string): string {
  if (!/[\0\r\n]/.test(value)) return value;
  throw new ReceiverError('OPTIONS', `the environment variable ${name} holds a NUL or a line end`, { name });
}

/**
 * Results are isolated by device, tools are shared by machine. The names come from ESPHome 2026.10; those that
 * must be absent (IDF_PATH, ESPHOME_BUILD_PATH, NINJA_STATUS, CC and others) are not on the list above.
 */
function pinned(dataDir: string, tools: string): [string, string][] {
  return [
    ['ESPHOME_DATA_DIR', checked('ESPHOME_DATA_DIR', dataDir)],
    ['TMPDIR', join(dataDir, 'tmp')],
    // ccache stops a build that has no home to write to; the account's own home holds the host's secrets.
    ['HOME', join(tools, toolNames.home)],
    ['ESPHOME_ESP_IDF_PREFIX', join(tools, toolNames.espIdf)],
    ['ESPHOME_SDK_NRF_PREFIX', join(tools, toolNames.sdkNrf)],
    ['ESPHOME_ARDUINO8266_PREFIX', join(tools, toolNames.arduino8266)],
    ['ESPHOME_HOST_PREFIX', join(tools, toolNames.host)],
    ['PLATFORMIO_CORE_DIR', join(tools, toolNames.platformio)],
    ['CCACHE_DIR', join(tools, toolNames.ccache)],
  ];
}
