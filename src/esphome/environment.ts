/**
 * Composes the environment of a build, and so limits what a peer's compiler sees of this machine.
 *
 * A local configuration gets the host's environment unchanged. A remote one gets an allow-list of it plus fixed
 * values. So no variable can move the build out of its data directory (`ESPHOME_IS_HA_ADDON` outranks
 * `ESPHOME_DATA_DIR` and once sent every remote build of an add-on to `/data`), and a peer's YAML cannot read the
 * host's secrets with `!env_var`. It is deterministic, because a changed environment makes ESPHome rebuild everything.
 */
import { access, constants } from 'node:fs/promises';
import { join } from 'node:path';

import { quote, ReceiverError, systemCode } from '../errors.js';
import type { Log } from '../log.js';
import type { Paths } from '../paths/index.js';
import { toolNames } from './platforms.js';

export type Environment = Readonly<Record<string, string>>;

/** Copied from the host if set. */
const inherited = [
  ...['PATH', 'TZ'],
  ...['http_proxy', 'https_proxy', 'no_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY'],
  ...['SSL_CERT_FILE', 'SSL_CERT_DIR', 'REQUESTS_CA_BUNDLE', 'GIT_SSL_CAINFO'],
] as const;

const defaultPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * The operator's limits for concurrent compilers. An empty or non-numeric value breaks every build (ESPHome 2026.10).
 * The first is part of the configuration's hash, so a client that computes the hash itself sees a device as changed.
 * The receiver therefore copies it from the host but never sets it.
 */
const compilerLimits = ['ESPHOME_DEFAULT_COMPILE_PROCESS_LIMIT', 'IDF_PY_BUILD_JOBS'] as const;

/** For every build: how ESPHome 2026.10 and its children print, and what they must not read or write. */
const fixed: Environment = {
  CLICOLOR_FORCE: '1',
  FORCE_COLOR: '1',
  PLATFORMIO_FORCE_ANSI: 'true',
  PYTHONIOENCODING: 'utf-8',
  // One build could plant the account's packages for the next.
  PYTHONNOUSERSITE: '1',
  PYTHONUNBUFFERED: '1',
  PYTHONUTF8: '1',
  // Git would otherwise ask for a password and wait forever.
  GIT_TERMINAL_PROMPT: '0',
  // Without it a compile dies where the configuration's directory is read-only.
  ESPHOME_NOGITIGNORE: '1',
};

export interface EnvironmentOptions {
  readonly paths: Pick<Paths, 'parseConfiguration' | 'resolveDataDir' | 'layout'>;
  /** The host's environment, usually `process.env`. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Names of further variables that remote builds can see. Default: none. */
  readonly passEnvironment?: readonly string[];
  /** Absolute. A Git configuration file that remote builds use instead of the account's. Default: none. */
  readonly gitConfig?: string | undefined;
  /**
   * Limit for a remote build's concurrent compilers, at least 1; null for the build tool's own. Applies to native
   * ESP-IDF builds, the only ones that ESPHome can limit without side effects. The host's own limit takes precedence.
   */
  readonly compilers?: number | null;
}

/**
 * Creates the function that composes the complete environment of a configuration's compile, sorted for a remote one.
 * It throws `TRAVERSAL` for an invalid configuration and `OPTIONS` for an inherited value with a NUL or a line end.
 */
export function createEnvironment(options: EnvironmentOptions): (configuration: string) => Environment {
  const { paths, environment: hostEnvironment, gitConfig, compilers = null } = options;
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
    if (gitConfig !== undefined)
      environment.set('GIT_CONFIG_GLOBAL', checked('GIT_CONFIG_GLOBAL', gitConfig));
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

interface CheckedEnvironment extends Pick<EnvironmentOptions, 'gitConfig' | 'environment'> {
  readonly log: Log;
}

/**
 * Warns if the time zone is UTC by default. Throws `OPTIONS` for a Git configuration that cannot be read, because Git
 * silently ignores a missing one.
 */
export async function checkEnvironment({ gitConfig, environment, log }: CheckedEnvironment): Promise<void> {
  if (gitConfig !== undefined)
    await access(gitConfig, constants.R_OK).catch((error: unknown) => {
      const message = `invalid gitConfig: expected a readable file, got ${quote(gitConfig)} (${systemCode(error)})`;
      throw new ReceiverError('OPTIONS', message, { gitConfig }, { cause: error });
    });
  const { timeZone } = new Intl.DateTimeFormat().resolvedOptions();
  if (!environment['TZ'] && /^(?:Etc\/)?UTC$/.test(timeZone))
    log.warn({ timeZone }, 'time zone not set, firmware defaults to UTC');
}

function definedOnly(environment: Readonly<Record<string, string | undefined>>): Environment {
  const entries = Object.entries(environment).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as Environment;
}

/** A proxy URL with credentials is the host's secret, unless the operator names it in `passEnvironment`. */
function holdsCredentials(name: string, value: string): boolean {
  return /_proxy$/i.test(name) && value.includes('@');
}

function checked(name: string, value: string): string {
  if (!/[\0\r\n]/.test(value)) return value;
  throw new ReceiverError('OPTIONS', `the environment variable ${name} contains a NUL or a line end`, {
    name,
  });
}

/**
 * Isolates results by device and shares tools across the machine. The names are those of ESPHome 2026.10. The
 * allow-list omits variables that must be absent (IDF_PATH, ESPHOME_BUILD_PATH, NINJA_STATUS, CC and others).
 */
function pinned(dataDir: string, tools: string): [string, string][] {
  return [
    ['ESPHOME_DATA_DIR', checked('ESPHOME_DATA_DIR', dataDir)],
    ['TMPDIR', join(dataDir, 'tmp')],
    // ccache fails a build without a writable home; the account's own home contains the host's secrets.
    ['HOME', join(tools, toolNames.home)],
    ['ESPHOME_ESP_IDF_PREFIX', join(tools, toolNames.espIdf)],
    ['ESPHOME_SDK_NRF_PREFIX', join(tools, toolNames.sdkNrf)],
    ['ESPHOME_ARDUINO8266_PREFIX', join(tools, toolNames.arduino8266)],
    ['ESPHOME_HOST_PREFIX', join(tools, toolNames.host)],
    ['PLATFORMIO_CORE_DIR', join(tools, toolNames.platformio)],
    ['CCACHE_DIR', join(tools, toolNames.ccache)],
  ];
}
