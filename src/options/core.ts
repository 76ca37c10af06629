/**
 * Declares every option of a receiver: its values, default, limits and description. `npm run options` generates
 * core-options.ts, docs/OPTIONS.md and `serve --help` from here. Options are checked once, when the receiver is created,
 * so that an invalid value does not fail hours later in the middle of a build.
 */
import { resolve } from 'node:path';

import * as z from 'zod';

import { silentLog, type Log } from '../log.js';
import { stateDirName } from '../paths/segments.js';
import {
  machineOf,
  defaultSlots,
  machineName,
  maxLanes,
  maxNameLength,
  maxSlots,
} from '../process/machine.js';
import type { CoreOptions, RetentionLimits } from './core-options.js';
import { bundleLimits, connectionLimits, dayMs, hourMs, minuteMs, retentionLimits } from './limits.js';
import { parseOptions } from './parse.js';
import { option } from './schema.js';

const secondMs = 1_000;

/** Also used for locks without a receiver. */
export const defaultLockStaleMs = 10 * secondMs;

const path = () =>
  z
    .string()
    .min(1)
    .refine((text) => !text.includes('\0'));
const isPath = { expected: 'a path' } as const;

const freeBytes = z
  .int()
  .min(0)
  .max(2 ** 40);

const duration = (least: number, most: number) => z.int().min(least).max(most);

function group<S extends z.core.$ZodShape>(shape: S) {
  return z.strictObject(shape).readonly();
}

export const coreOptions = {
  configDir: option(path(), {
    summary: "Directory of the host's YAML files.",
    ...isPath,
  }),
  buildsDir: option(path().optional(), {
    summary: 'Directory for remote builds. Put it on a large volume.',
    defaultText: '`<configDir>/.esphome/.remote_builds`',
    ...isPath,
  }),
  dataDir: option(path().optional(), {
    summary: "ESPHome's data directory for the host's own configurations.",
    defaultText: 'the directory that ESPHome itself uses',
    ...isPath,
  }),
  stateDir: option(path().optional(), {
    summary: "Directory for the receiver's key and its paired peers. Back it up.",
    defaultText: '`<configDir>/.esphome-receiver`',
    ...isPath,
  }),
  newIdentity: option(z.boolean().default(false), {
    summary: 'Starts with a new key, or without paired dashboards, if the stored ones are lost or damaged.',
    details:
      'All dashboards must then pair again. Without this option, the receiver refuses to start. It keeps intact files.',
  }),
  takeOver: option(path().optional(), {
    summary:
      'Configuration directory of a Device Builder build server whose key and peers the receiver takes over.',
    details:
      'Clients notice nothing. Stop the other server first. Once the take-over is done, the option has no effect.',
    defaultText: 'none',
    ...isPath,
  }),
  esphome: option(z.union([z.string().min(1), z.array(z.string()).min(1).readonly()]).optional(), {
    summary: 'Command that starts ESPHome.',
    details: 'In a string, spaces separate the program and its arguments.',
    defaultText: '`ESPHOME_COMMAND`, then `esphome` on the `PATH`',
    type: 'string | readonly string[]',
    expected: 'a command, or an array of a program and its arguments',
  }),
  environment: option(
    z
      .record(z.string(), z.string().optional())
      .readonly()
      .default(() => ({ ...process.env })),
    {
      summary: "Environment of the host's own builds. Remote builds get an allow-list of it.",
      defaultText: '`process.env`',
      type: 'Readonly<Record<string, string | undefined>>',
      expected: 'an object of environment variables',
      isSecret: true,
    },
  ),
  passEnvironment: option(
    z
      .array(
        option(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), {
          summary: '',
          expected: 'the name of an environment variable',
        }),
      )
      .readonly()
      .default([]),
    {
      summary: 'Names of further variables of `environment` that remote builds get.',
      defaultText: 'none',
      type: 'readonly string[]',
      expected: 'an array of names of environment variables',
    },
  ),
  gitConfig: option(path().optional(), {
    summary: 'Git configuration file for remote builds that fetch from private repositories.',
    details:
      "It can hold `insteadOf`, credential helpers or `core.sshCommand`. Every peer's build can read it and the files that it names. Without it, builds do not see this account's Git configuration.",
    defaultText: 'none',
    ...isPath,
  }),
  friendlyName: option(z.string().max(maxNameLength).default(machineName), {
    summary: 'Name of this machine as clients show it.',
    defaultText: 'the first label of the host name',
  }),
  haAddon: option(z.boolean().default(false), {
    summary: 'Shows this machine to clients as a Home Assistant add-on.',
  }),
  pairingByKey: option(z.boolean().default(false), {
    summary: 'Tells clients that pairing needs the key that `armOneTimeKey` shows.',
  }),
  slots: option(
    z
      .int()
      .min(1)
      .max(maxSlots)
      .default(() => defaultSlots(machineOf())),
    {
      summary: 'Number of builds that run at the same time.',
      defaultText: 'one for every 4 processors and 3 GB of memory',
    },
  ),
  lanes: option(z.int().min(1).max(maxLanes).default(1), {
    summary: 'Number of build servers that the receiver presents, each with its own key and port.',
    details:
      'Device Builder sends one build at a time to each build server, so one dashboard needs as many lanes as slots to use them all. A dashboard that is approved on one lane is approved on all.',
  }),
  lanePorts: option(
    z
      .array(option(z.int().min(0).max(65_535), { summary: '', isPort: true, expected: 'a port' }))
      .readonly()
      .optional(),
    {
      summary: 'Ports of the lanes after the first.',
      defaultText: 'the ports after that of the first lane',
      type: 'readonly number[]',
      expected: 'an array of ports',
    },
  ),
  minFreeMemoryBytes: option(freeBytes.default(1_000_000_000), {
    summary: 'Free memory that a build needs to start while other builds run; 0 turns the check off.',
    details: 'Each build that started within the last 20 seconds counts as yet to take the same amount.',
  }),
  minFreeDiskBytes: option(freeBytes.default(500_000_000), {
    summary:
      'Free disk space in `buildsDir` that a build needs to start while other builds run; 0 turns the check off.',
    details: 'With less, unused builds are removed, and a build that runs alone fails.',
  }),
  compileTimeoutMs: option(duration(secondMs, dayMs).default(hourMs), {
    summary: 'Time limit for one compile.',
  }),
  silenceTimeoutMs: option(duration(secondMs, dayMs).default(20 * minuteMs), {
    summary: 'Time without output after which a compile counts as hanging and is stopped.',
    details: 'A linker or a download can be silent for minutes.',
  }),
  maxOutputBytes: option(z.int().min(65_536).max(67_108_864).default(8_388_608), {
    summary: 'Output of one job that is stored in its log and sent to its peer.',
    details: 'Of longer output, the beginning and the last lines are kept.',
  }),
  maxJobsPerPeer: option(z.int().min(1).max(10_000).default(100), {
    summary: 'Number of unfinished jobs per peer. Further jobs fail.',
  }),
  maxUploadsPerPeer: option(z.int().min(2).max(64).default(8), {
    summary:
      'Number of unfinished uploads per peer, across all its connections. Further uploads are refused.',
    details: 'An upload counts until it is unpacked or removed.',
  }),
  bundleLimits: option(group(bundleLimits).prefault({}), {
    summary: 'Limits on the size of a bundle and on the time to upload it.',
    type: 'Partial<BundleLimits>',
  }),
  peerReset: option(z.enum(['own', 'all', 'none']).default('own'), {
    summary:
      'What a peer can reset: `own`, the builds made for it; `all`, the builds of all peers; `none`, nothing, and clients are told so.',
    details: 'Compiler caches stay; toolchains are renewed if the next build fails for no known reason.',
  }),
  connectionLimits: option(group(connectionLimits).prefault({}), {
    summary: 'Limits on connections that have not been authenticated as a paired peer.',
    type: 'Partial<ConnectionLimits>',
  }),
  provisionVersions: option(z.boolean().default(true), {
    summary: 'Installs the ESPHome release that a job asks for when the host does not have it.',
    details:
      'The release comes from the package index. Device Builder does the same, and its clients expect it.',
  }),
  maxVersions: option(z.int().min(1).max(100).default(3), {
    summary: 'Number of installed ESPHome releases that are kept in addition to those in use.',
    details: 'Each takes about 220 MB. The least recently used release is removed first.',
  }),
  resultTtlMs: option(duration(hourMs, 365 * dayMs).default(30 * dayMs), {
    summary: 'How long a result and its log are kept after the end of the job or the last download.',
  }),
  maxResultsPerPeer: option(z.int().min(1).max(10_000).default(50), {
    summary: 'Number of results that are kept per peer. Downloaded results are removed first.',
    details: 'As many ended jobs without a result are kept as well.',
  }),
  retention: option(group(retentionLimits).prefault({}), {
    summary: 'How long builds and tools are kept, and how much disk space they can take.',
    details: '`receiver.retention.setLimits()` changes these limits while the receiver runs.',
    type: 'Partial<RetentionLimits>',
  }),
  resultCache: option(z.boolean().default(true), {
    summary: 'Answers a bundle that is sent again with the result of the build before it.',
  }),
  absentPeerGraceMs: option(duration(10 * secondMs, dayMs).default(10 * minuteMs), {
    summary: 'How long a peer with unfinished jobs can be away before they are cancelled.',
  }),
  connectBack: option(z.boolean().default(false), {
    summary: "Calls peers that stay away for five minutes and tells them this receiver's port.",
    details:
      'They then find a receiver whose address has changed. Device Builder always does this. It opens connections from this machine to addresses and ports that peers have named, so turn it on only where peers cannot find this machine by mDNS.',
  }),
  lockStaleMs: option(duration(2 * secondMs, 10 * minuteMs).default(defaultLockStaleMs), {
    summary: 'Time without a sign of life after which the locks of a receiver count as abandoned.',
    details: 'All receivers that share a `buildsDir` must have the same value.',
  }),
  log: option(
    z.custom<Log>(isLog).default(() => silentLog),
    {
      summary:
        'Logger with `debug`, `info`, `warn` and `error`, each called with `(facts, text)`; pino fits.',
      defaultText: 'no output',
      type: 'Log',
      expected: 'an object with the functions debug, info, warn and error',
    },
  ),
};

function isLog(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return (['debug', 'info', 'warn', 'error'] as const).every(
    (level) => typeof Reflect.get(value, level) === 'function',
  );
}

const schema = z.strictObject(coreOptions);

export type ResolvedOptions = ReturnType<typeof resolveOptions>;

/** Checks a copy of the options and fills in the defaults. Throws `OPTIONS`, naming the option. */
export function resolveOptions(options: CoreOptions) {
  return Object.freeze(withAbsolutePaths(parseOptions(schema, options)));
}

/** Makes the state's paths absolute; the builds' paths are resolved with the layout. */
export function withAbsolutePaths<O extends z.output<typeof schema>>(options: O) {
  const { configDir, stateDir = resolve(configDir, stateDirName), takeOver } = options;
  return {
    ...options,
    configDir: resolve(configDir),
    stateDir: resolve(stateDir),
    takeOver: takeOver === undefined ? undefined : resolve(takeOver),
  };
}

/** Without defaults, so that limits which are not named keep their values. */
const changes = z
  .strictObject(
    Object.fromEntries(Object.entries(retentionLimits).map(([name, limit]) => [name, limit.unwrap()])),
  )
  .partial();

/** Throws `OPTIONS`, naming the limit. */
export function changeRetention(limits: RetentionLimits, wanted: unknown): RetentionLimits {
  const given = Object.entries(parseOptions(changes, wanted)).filter(([, value]) => value !== undefined);
  return Object.freeze({ ...limits, ...Object.fromEntries(given) });
}

/** Four heartbeats per stale time, at most one a second. */
export function lockTiming(lockStaleMs: number): { readonly staleMs: number; readonly updateMs: number } {
  return { staleMs: lockStaleMs, updateMs: Math.max(1_000, Math.floor(lockStaleMs / 4)) };
}
