/**
 * What a host may wish, checked once at the start and never again.
 *
 * What cannot be is refused when the receiver is made, naming the field, and not hours later in the middle of
 * somebody's build. The caller's object is never changed; what the parts read is a new one.
 */
import { hostname } from 'node:os';
import { resolve } from 'node:path';

import * as z from 'zod';

import { maxBundleBytes } from './protocol/transfer.js';
import { defaultBundleLimits, type BundleLimits } from './bundles/limits.js';
import { ReceiverError } from './errors.js';
import { defaultMaxOutputBytes } from './jobs/log.js';
import { defaultSlots, maxSlots } from './jobs/slots.js';
import {
  defaultMaxUploadsPerPeer,
  defaultStrangerLimits,
  type StrangerLimits,
} from './server/connection-limits.js';
import { silentLog, type Log } from './log.js';
import { stateDirName } from './paths/segments.js';
import { defaultPairingLimits, type PairingLimits } from './peers/pending.js';
import { changedLimits, defaultLimits, limitsShape, type RetentionLimits } from './retention/limits.js';
import { machineOf } from './process/machine.js';

export interface ConnectionLimits extends StrangerLimits, PairingLimits {
  /** Sockets on the receiver's own port before their upgrade to the peer link. */
  readonly sockets: number;
}

export const defaultConnectionLimits: ConnectionLimits = Object.freeze({
  sockets: 1_024,
  ...defaultStrangerLimits,
  ...defaultPairingLimits,
});

export interface CoreOptions {
  /** The directory of the host's YAML files. Needed. */
  readonly configDir: string;
  /** Where remote builds live; put it on the big volume. Default: `<configDir>/.esphome/.remote_builds`. */
  readonly buildsDir?: string | undefined;
  /** ESPHome's data directory of the host's own configurations. Default: what ESPHome itself would take. */
  readonly dataDir?: string | undefined;
  /** Where the identity and the paired peers are kept. Default: `<configDir>/.esphome-receiver`. */
  readonly stateDir?: string | undefined;
  /**
   * The configuration directory of a Device Builder build server whose key and peers are taken over, so that its
   * clients notice nothing; it must not run any more. Stays without effect once that is done. Default: none.
   */
  readonly takeOver?: string | undefined;
  /** The compiler: a command or its words. Default: `ESPHOME_COMMAND`, then `esphome` on the PATH. */
  readonly esphome?: string | readonly string[] | undefined;
  /** The environment of the host's own builds, from which remote builds see an allow-list. Default: `process.env`. */
  readonly environment?: Readonly<Record<string, string | undefined>> | undefined;
  /** Further variables of it that remote builds may see. Default: none. */
  readonly passEnvironment?: readonly string[] | undefined;
  /** The machine's name as clients show it, at most 128 characters. Default: the host name's first label. */
  readonly friendlyName?: string | undefined;
  /** Whether this is a Home Assistant add-on; clients show it. Default: false. */
  readonly haAddon?: boolean | undefined;
  /** Whether clients are told that pairing needs the key which `armOneTimeKey` shows. Default: false. */
  readonly pairingByKey?: boolean | undefined;
  /** How many builds run at once, from 1 to 64. Default: one for every 4 processors and 3 GB of memory. */
  readonly slots?: number | undefined;
  /**
   * A build begins beside others only with as much memory free, in bytes; the others that began in the last 20 s count
   * as yet to take the same. From 0 (off) to 2^40. Default: 1,000,000,000.
   */
  readonly minFreeMemoryBytes?: number | undefined;
  /**
   * The same for the volume of `buildsDir`, in bytes; with less, even a lone build fails. From 0 (off) to 2^40.
   * Default: 500,000,000.
   */
  readonly minFreeDiskBytes?: number | undefined;
  /** Longest time of one compile, in milliseconds. From 1,000 to 86,400,000. Default: 3,600,000 (an hour). */
  readonly compileTimeoutMs?: number | undefined;
  /**
   * Longest time in which a compile prints nothing, in milliseconds: then it hangs and is ended. A linker and a
   * download may well be silent for minutes. From 1,000 to 86,400,000. Default: 1,200,000 (20 minutes).
   */
  readonly silenceTimeoutMs?: number | undefined;
  /**
   * Most output of one job that is kept in its log and sent to its peer, in bytes; of what is over only the last lines
   * are. From 65,536 to 67,108,864. Default: 8,388,608.
   */
  readonly maxOutputBytes?: number | undefined;
  /** Most jobs of one peer that have not ended; further ones fail. From 1 to 10,000. Default: 100. */
  readonly maxJobsPerPeer?: number | undefined;
  /**
   * Most uploads of one peer under way, one that arrives and those that are being unpacked or removed, over all its
   * connections; a further one is refused. From 2 to 64. Default: 8.
   */
  readonly maxUploadsPerPeer?: number | undefined;
  /** How much a peer's bundle may be, and how long it may take. What is not named keeps its default. */
  readonly bundleLimits?: Partial<BundleLimits> | undefined;
  /**
   * What a dashboard resets that asks for it: `own`, what was built for it; `all`, what was built for anybody; `none`,
   * nothing, and it is told so. Tools and compiler caches stay in any case. Default: `own`.
   */
  readonly peerReset?: 'own' | 'all' | 'none' | undefined;
  /** How much strangers may do before they have proved who they are. What is not named keeps its default. */
  readonly connectionLimits?: Partial<ConnectionLimits> | undefined;
  /**
   * Whether an ESPHome that a job asks for and the host does not have is installed from the package index, besides the
   * host's own. Default: true, as the original does and its clients expect.
   */
  readonly provisionVersions?: boolean | undefined;
  /** How many such releases are kept besides those in use, 220 MB each; the least recently used go. Default: 3. */
  readonly maxVersions?: number | undefined;
  /**
   * How long a result and its log are kept after the end of the job or the last download, in milliseconds. From
   * 3,600,000 (an hour) to 31,536,000,000 (a year). Default: 2,592,000,000 (30 days).
   */
  readonly resultTtlMs?: number | undefined;
  /**
   * Most results of one peer that are kept; of more, those that were fetched go first. As many ended jobs without a
   * result are kept besides. From 1 to 10,000. Default: 50.
   */
  readonly maxResultsPerPeer?: number | undefined;
  /** How long builds and tools are kept, and how much room they may take. What is not named keeps its default. */
  readonly retention?: Partial<RetentionLimits> | undefined;
  /** Whether the same bundle, sent again, gets the result of the build before it. Default: true. */
  readonly resultCache?: boolean | undefined;
  /**
   * How long a peer may be away while jobs of its wait or run before they are cancelled, in milliseconds. From 10,000 to
   * 86,400,000 (a day). Default: 600,000 (10 minutes).
   */
  readonly absentPeerGraceMs?: number | undefined;
  /**
   * Whether dashboards that stay away for five minutes are called at their last address and told the port that
   * `listen` has bound, so that they find a receiver that has moved. The original always does so. Default: false,
   * because it opens connections from this machine to addresses and ports that peers have said; turn it on where
   * dashboards cannot see this machine by mDNS, and its address may change.
   */
  readonly connectBack?: boolean | undefined;
  /**
   * After how long without a sign of life the lock of a receiver that has died or stands still is free, in
   * milliseconds. From 2,000 to 600,000; the receivers of one builds directory must agree. Default: 10,000.
   */
  readonly lockStaleMs?: number | undefined;
  /** Default: says nothing. */
  readonly log?: Log | undefined;
}

export interface ResolvedOptions {
  readonly configDir: string;
  readonly buildsDir: string | undefined;
  readonly dataDir: string | undefined;
  readonly stateDir: string;
  readonly takeOver: string | undefined;
  readonly esphome: string | readonly string[] | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly passEnvironment: readonly string[];
  readonly friendlyName: string;
  readonly haAddon: boolean;
  readonly pairingByKey: boolean;
  readonly slots: number;
  readonly minFreeMemoryBytes: number;
  readonly minFreeDiskBytes: number;
  readonly compileTimeoutMs: number;
  readonly silenceTimeoutMs: number;
  readonly maxOutputBytes: number;
  readonly maxJobsPerPeer: number;
  readonly maxUploadsPerPeer: number;
  readonly bundleLimits: BundleLimits;
  readonly peerReset: 'own' | 'all' | 'none';
  readonly connectionLimits: ConnectionLimits;
  readonly retention: RetentionLimits;
  readonly provisionVersions: boolean;
  readonly maxVersions: number;
  readonly resultTtlMs: number;
  readonly maxResultsPerPeer: number;
  readonly resultCache: boolean;
  readonly absentPeerGraceMs: number;
  readonly connectBack: boolean;
  readonly lockStaleMs: number;
  readonly log: Log;
}

const place = z
  .string()
  .min(1)
  .refine((text) => !text.includes('\0'), 'a path holds no NUL');

const limit = (name: keyof BundleLimits, most = Number.MAX_SAFE_INTEGER) =>
  z.int().min(1).max(most).default(defaultBundleLimits[name]);

const bundleLimits = z.strictObject({
  packedBytes: limit('packedBytes', maxBundleBytes),
  unpackedBytes: limit('unpackedBytes'),
  members: limit('members'),
  depth: limit('depth'),
  segmentBytes: limit('segmentBytes', 255),
  pathBytes: limit('pathBytes'),
  ratio: limit('ratio'),
  ratioFreeBytes: limit('ratioFreeBytes'),
  manifestBytes: limit('manifestBytes'),
  uploadTimeoutMs: limit('uploadTimeoutMs', 86_400_000),
});

const connections = (name: keyof ConnectionLimits, least: number, most: number) =>
  z.int().min(least).max(most).default(defaultConnectionLimits[name]);

const connectionLimits = z.strictObject({
  sockets: connections('sockets', 16, 65_536),
  strangers: connections('strangers', 4, 4_096),
  strangersPerAddress: connections('strangersPerAddress', 2, 4_096),
  handshakesPerSecond: connections('handshakesPerSecond', 1, 10_000),
  handshakeTimeoutMs: connections('handshakeTimeoutMs', 1_000, 60_000),
  pairingRequests: connections('pairingRequests', 1, 1_000),
  waitersPerRequest: connections('waitersPerRequest', 1, 64),
});

const freeBytes = z
  .int()
  .min(0)
  .max(2 ** 40);

const schema = z.strictObject({
  configDir: place,
  buildsDir: place.optional(),
  dataDir: place.optional(),
  stateDir: place.optional(),
  takeOver: place.optional(),
  esphome: z.union([z.string().min(1), z.array(z.string()).min(1)]).optional(),
  environment: z.record(z.string(), z.string().optional()).optional(),
  passEnvironment: z.array(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/)).default([]),
  friendlyName: z.string().max(128).optional(),
  haAddon: z.boolean().default(false),
  pairingByKey: z.boolean().default(false),
  slots: z.int().min(1).max(maxSlots).optional(),
  minFreeMemoryBytes: freeBytes.default(1_000_000_000),
  minFreeDiskBytes: freeBytes.default(500_000_000),
  compileTimeoutMs: z.int().min(1_000).max(86_400_000).default(3_600_000),
  silenceTimeoutMs: z.int().min(1_000).max(86_400_000).default(1_200_000),
  maxOutputBytes: z.int().min(65_536).max(67_108_864).default(defaultMaxOutputBytes),
  maxJobsPerPeer: z.int().min(1).max(10_000).default(100),
  maxUploadsPerPeer: z.int().min(2).max(64).default(defaultMaxUploadsPerPeer),
  bundleLimits: bundleLimits.prefault({}),
  peerReset: z.enum(['own', 'all', 'none']).default('own'),
  connectionLimits: connectionLimits.prefault({}),
  provisionVersions: z.boolean().default(true),
  maxVersions: z.int().min(1).max(100).default(3),
  resultTtlMs: z.int().min(3_600_000).max(31_536_000_000).default(2_592_000_000),
  maxResultsPerPeer: z.int().min(1).max(10_000).default(50),
  retention: z.strictObject(limitsShape).partial().prefault({}),
  resultCache: z.boolean().default(true),
  absentPeerGraceMs: z.int().min(10_000).max(86_400_000).default(600_000),
  connectBack: z.boolean().default(false),
  lockStaleMs: z.int().min(2_000).max(600_000).default(10_000),
  log: z.custom<Log>(isLog, 'a log needs debug, info, warn and error').optional(),
});

/** Checks the options and fills in the defaults. Throws `OPTIONS`, naming the field. */
export function resolveOptions(options: CoreOptions): ResolvedOptions {
  const result = schema.safeParse(options);
  if (!result.success) throw new ReceiverError('OPTIONS', z.prettifyError(result.error));
  const read = result.data;
  return Object.freeze({
    ...read,
    configDir: resolve(read.configDir),
    buildsDir: read.buildsDir,
    dataDir: read.dataDir,
    stateDir: resolve(read.stateDir ?? resolve(read.configDir, stateDirName)),
    takeOver: read.takeOver === undefined ? undefined : resolve(read.takeOver),
    esphome: read.esphome,
    environment: read.environment ?? { ...process.env },
    friendlyName: read.friendlyName ?? machineName(),
    slots: read.slots ?? defaultSlots(machineOf()),
    retention: changedLimits(defaultLimits, read.retention),
    log: read.log ?? silentLog,
  });
}

/** The first label of the host name, as the original has it. */
function machineName(): string {
  return hostname().split('.', 1)[0]?.trim().slice(0, 128) || 'esphome-dashboard';
}

function isLog(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return (['debug', 'info', 'warn', 'error'] as const).every(
    (level) => typeof Reflect.get(value, level) === 'function',
  );
}
