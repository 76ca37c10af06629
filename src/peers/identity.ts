/**
 * The receiver's key and dashboard id, each created once and kept. Peers pin the key: when it changes, every peer raises
 * an alarm and stops for good, so a working key is never replaced. The id is neither secret nor a proof, but names
 * a peer's builds and pairing.
 */
import { createPrivateKey, createPublicKey, randomBytes } from 'node:crypto';
import { join } from 'node:path';

import type { Clock } from '../async/clock.js';
import { writeAtomic } from '../disk/atomic-write.js';
import { isReceiverError, messageOf, ReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import { dashboardId, type DashboardId } from '../paths/index.js';
import { pinOf } from '../protocol/fingerprint.js';
import { loadOrCreate, readIfAny, restoreIfGone, wayOut } from './kept-file.js';

export interface Identity {
  /** The raw X25519 key, 32 bytes. The only secret of the link. */
  readonly privateKey: Buffer;
  /** The raw public key, 32 bytes. */
  readonly publicKey: Buffer;
  /** See {@link pinOf}. */
  readonly pin: string;
}

const keyBytes = 32;
/** In the state directory, like {@link dashboardIdFile}. */
export const identityFile = 'identity.key';
export const dashboardIdFile = 'dashboard-id';
/** The DER in front of a raw X25519 key in PKCS #8. */
const pkcs8Prefix = Buffer.from('302e020100300506032b656e04220420', 'hex');

/** A lane with its private key. */
export interface Lane {
  /** 1 for the first, whose key is that of the receiver. */
  readonly number: number;
  readonly identity: Identity;
  /** The name that clients show. */
  readonly friendlyName: string;
}

/** One of the build servers that the receiver presents. A client sends one build at a time to each. */
export interface LaneFacts {
  /** 1 for the first, whose key and name are those of the receiver. */
  readonly number: number;
  readonly friendlyName: string;
  /** SHA-256 of the lane's public key in lower-case hex; null when its key file is unusable. */
  readonly pin: string | null;
  /** Why the lane does not serve; null if it does. */
  readonly fault: string | null;
}

export interface NewTrust {
  /** Whether a missing or unusable file is replaced although dashboards rely on it. Undefined: there is no such choice. */
  readonly newIdentity?: boolean | undefined;
  /** Whether dashboards rely on it, so that a missing file must have been lost. Default: no. */
  readonly isReliedOn?: (() => Promise<boolean>) | undefined;
}

/**
 * Loads the key (32 raw bytes, mode 0600) from the state directory, or creates it. Throws `STATE` for an unusable key, and
 * for a missing one that dashboards rely on, unless `newIdentity` allows another.
 */
export async function loadIdentity(
  directory: string,
  log: Log,
  { newIdentity, isReliedOn = async () => false }: NewTrust = {},
  name = identityFile,
): Promise<Identity> {
  const file = join(directory, name);
  const kept = {
    parse: (content: Buffer) => (keyFault(content) === null ? identityOf(content) : undefined),
    create: () => randomBytes(keyBytes),
    async assertReplaceable(content: Buffer | undefined) {
      if (newIdentity === true || (content === undefined && !(await isReliedOn()))) return;
      const fault = content
        ? keyFault(content)
        : 'is missing, although dashboards are paired or builds exist';
      const message = `the identity key (${name} in the state directory) ${fault}: expected ${keyBytes} random bytes`;
      const way =
        newIdentity === undefined
          ? 'restore it from a backup, or remove it and pair again'
          : wayOut(name, 'all dashboards must then pair again');
      throw new ReceiverError('STATE', `${message}; ${way}`, { file });
    },
  };
  return loadOrCreate(file, kept, log);
}

/** A lane that cannot serve. */
export interface LaneFault extends Pick<Lane, 'number' | 'friendlyName'> {
  readonly fault: string;
}

/** In the state directory: the highest number of a lane whose key was made, so that a lost key is not made anew. */
const lanesFile = 'lanes';

/**
 * Loads the keys of the lanes after the first, and creates those of new lanes. A lane whose key is unusable or lost does
 * not start unless `newIdentity` allows another: with a new key, dashboards would see a different build server.
 */
export async function loadFurtherLanes({
  stateDir,
  lanes,
  friendlyName,
  newIdentity,
  log,
}: {
  stateDir: string;
  lanes: number;
  friendlyName: string;
  newIdentity: boolean;
  log: Log;
}): Promise<(Lane | LaneFault)[]> {
  if (lanes === 1) return [];
  const file = join(stateDir, lanesFile);
  const made = madeLanes(await readIfAny(file));
  const numbers = Array.from({ length: lanes - 1 }, (_, index) => index + 2);
  const found = await Promise.all(
    numbers.map(async (number) => {
      const lane = { number, friendlyName: `${friendlyName} ${number}` };
      try {
        const trust = { newIdentity, isReliedOn: async () => number <= made };
        return { ...lane, identity: await loadIdentity(stateDir, log, trust, laneFile(number)) };
      } catch (error) {
        log.error({ lane: number, err: error }, 'lane not started');
        return { ...lane, fault: messageOf(error) };
      }
    }),
  );
  if (lanes > made) await writeAtomic(file, `${lanes}\n`);
  return found;
}

/** All of them if the file is damaged: no key may be made anew in doubt. */
function madeLanes(content: Buffer | undefined): number {
  if (content === undefined) return 1;
  const text = content.toString('latin1').trim();
  return /^[1-9]\d{0,3}$/.test(text) ? Number(text) : Infinity;
}

export function laneFacts(lane: Lane | LaneFault): LaneFacts {
  const { number, friendlyName } = lane;
  if ('fault' in lane) return { number, friendlyName, pin: null, fault: lane.fault };
  return { number, friendlyName, pin: lane.identity.pin, fault: null };
}

function laneFile(number: number): string {
  return `identity-${number}.key`;
}

/** Writes the key again if it was removed while the receiver runs. Throws system errors. */
export async function keepIdentity(
  directory: string,
  { privateKey }: Identity,
  log: Log,
  name = identityFile,
): Promise<void> {
  await restoreIfGone(join(directory, name), privateKey, log);
}

const keepTrustMs = 60_000;

/**
 * Writes the key and the peers again from memory when somebody has removed them. Returns the function that stops this.
 */
export function keepTrust(
  directory: string,
  lanes: readonly Lane[],
  parts: { reread(): Promise<void>; readonly clock: Pick<Clock, 'after'>; readonly log: Log },
): () => Promise<void> {
  const { reread, clock, log } = parts;
  let checking = Promise.resolve();
  let cancel = clock.after(keepTrustMs, check);
  async function keepKeys(): Promise<void> {
    for (const { number, identity } of lanes)
      await keepIdentity(directory, identity, log, number === 1 ? identityFile : laneFile(number));
  }
  function check(): void {
    checking = keepKeys()
      .catch((err: unknown) => log.error({ err, directory }, 'identity key not restored'))
      .then(reread);
    cancel = clock.after(keepTrustMs, check);
  }
  return async () => {
    cancel();
    await checking;
  };
}

/** Null for a usable key. */
export function keyFault(key: Buffer): string | null {
  if (key.length === 0) return 'is empty, or a link to a missing file';
  if (key.length !== keyBytes) return `has ${key.length} bytes`;
  // A power cut can leave such a file.
  return key.every((byte) => byte === 0) ? 'contains only zeros' : null;
}

/** The identity of a raw private key of 32 bytes. */
export function identityOf(privateKey: Uint8Array): Identity {
  const der = Buffer.concat([pkcs8Prefix, privateKey]);
  const key = createPublicKey(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }));
  const publicKey = key.export({ format: 'der', type: 'spki' }).subarray(-keyBytes);
  return Object.freeze({ privateKey: der.subarray(-keyBytes), publicKey, pin: pinOf(publicKey) });
}

/** 24 random bytes as 32 characters of base64url. */
export function newDashboardId(): DashboardId {
  return dashboardId(randomBytes(24).toString('base64url'));
}

/** The text in lower case, with `_` as `-` and without any other characters than `a-z 0-9 -`. */
export function dnsLabel(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9_-]/g, '')
    .replaceAll('_', '-');
}

/** Equal for ids that can name the same directory, because some file systems ignore letter case. */
export function foldId(id: string): string {
  return id.toLowerCase();
}

/** The text if it is a valid id, otherwise an id with the same {@link dnsLabel}. */
export function idOfSameName(text: string): DashboardId {
  return idOrUndefined(text) ?? dashboardId(dnsLabel(text).slice(0, 64).padEnd(8, '-'));
}

/** Loads the id from the state directory, or creates it. */
export async function loadDashboardId(directory: string, log: Log): Promise<DashboardId> {
  const kept = {
    parse: (content: Buffer) => idOrUndefined(content.toString('latin1').trim()),
    create: () => Buffer.from(`${newDashboardId()}\n`),
    // Only the announced name changes.
    assertReplaceable: async () => {},
  };
  return loadOrCreate(join(directory, dashboardIdFile), kept, log);
}

/** The id, or undefined if its form is invalid. */
export function idOrUndefined(text: unknown): DashboardId | undefined {
  try {
    return dashboardId(text);
  } catch (error) {
    if (isReceiverError(error, 'TRAVERSAL')) return undefined;
    throw error;
  }
}
