/**
 * Unpacks a bundle while it arrives, into a fresh private directory; the archive itself is never stored, and memory
 * stays constant. The result is a complete tree that the caller owns, or nothing: a failed, cancelled or partial upload
 * leaves no file behind.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

import { makeDirectory } from '../disk/atomic-write.js';
import { temporaryName } from '../disk/names.js';
import { ReceiverError, isReceiverError, quote, systemCode } from '../errors.js';
import { manifestFile, parseManifest, type Manifest } from '../esphome/manifest.js';
import { silentLog, type Log } from '../log.js';
import type { BundleLimits } from '../options/core-options.js';
import type { FileName } from '../paths/index.js';
import type { Clock } from '../async/clock.js';
import { extract, type TakeRoom } from './extract.js';
import { createInflater, type Inflater } from './inflate.js';
import type { MemberTree } from './member-names.js';
import { removeOrWarn } from './unpack-messages.js';
import { stagedBundle, type StagedBundle } from './store.js';

export interface IntakeOptions {
  /** Parent of the staging directory, created when missing. On the file system of the builds. */
  readonly uploadsDir: string;
  /** Name of the staging directory, which must not exist. Default: a temporary name. */
  readonly name?: string | undefined;
  /** The YAML that the upload announced; the manifest must name the same. */
  readonly configurationFilename: FileName;
  readonly bundleLimits: BundleLimits;
  /** Default: there is always room. */
  readonly takeRoom?: TakeRoom | undefined;
  readonly log?: Log | undefined;
  readonly clock: Clock;
}

/** Its owner ends every intake with `finish` or `abort`. */
export interface BundleIntake {
  /**
   * Accepts the next bytes. Never throws: `finish` reports an error, and later bytes are dropped. Returns false when
   * the caller must wait for `drain`; until then the bytes must not change.
   */
  write(bytes: Buffer): boolean;
  /** Resolves when there is room again, or when the intake is over. Never rejects. */
  drain(): Promise<void>;
  /**
   * Call it once, after the last bytes. Throws `BUNDLE`, also after the time limit, `RESOURCE` when the peer has no room
   * left, `CANCELLED` after an abort, and system errors when the disk cannot hold the bundle; the directory is gone by then.
   */
  finish(): Promise<StagedBundle>;
  /** Gives up and removes the staging directory, unless `finish` has returned it. Never rejects. */
  abort(): Promise<void>;
}

type IntakeOutcome = { readonly staged: StagedBundle } | { readonly error: unknown };

/** Starts immediately and never throws: `finish` reports every error, even a full disk. */
export function openIntake(options: IntakeOptions): BundleIntake {
  const { bundleLimits: limits, log = silentLog, clock } = options;
  const inflater = createInflater(limits);
  const outcome = unpack(inflater, limits, log, options);
  let cancelling: Promise<void> | null = null;
  let reason: ReceiverError | null = null;
  let handedOver = false;

  async function removeStaged(): Promise<void> {
    const result = await outcome;
    if ('staged' in result) await removeOrWarn(result.staged.directory, log);
  }

  async function cancel(why = new ReceiverError('CANCELLED', 'the upload was cancelled')): Promise<void> {
    reason ??= why;
    inflater.destroy();
    await (cancelling ??= removeStaged());
  }

  const stopTimer = clock.after(limits.uploadTimeoutMs, () => {
    const seconds = limits.uploadTimeoutMs / 1_000;
    void cancel(new ReceiverError('BUNDLE', `the upload took over ${seconds} seconds`));
  });
  void outcome.then(stopTimer);

  return {
    write: (bytes) => inflater.write(bytes),
    drain: () => inflater.room(),
    async finish() {
      inflater.end();
      const result = await outcome;
      if (cancelling !== null) {
        await cancelling;
        throw reason;
      }
      if ('error' in result) throw result.error;
      const fault = inflater.fault();
      if (fault !== null) {
        await cancel();
        throw new ReceiverError('BUNDLE', `the archive is damaged: ${fault}`);
      }
      handedOver = true;
      return result.staged;
    },
    async abort() {
      if (!handedOver) await cancel();
    },
  };
}

/** Never rejects. An error leaves nothing in the uploads directory. */
async function unpack(
  inflater: Inflater,
  limits: BundleLimits,
  log: Log,
  { uploadsDir, name = temporaryName(), configurationFilename, takeRoom }: IntakeOptions,
): Promise<IntakeOutcome> {
  let directory: string | null = null;
  try {
    await makeDirectory(uploadsDir);
    const fresh = join(uploadsDir, name);
    await mkdir(fresh, { mode: 0o700 });
    directory = fresh;
    const { tree, facts, ...extracted } = await extract(inflater.pieces(), directory, limits, takeRoom);
    const manifest = parseManifest(extracted.manifest);
    checkConfiguration(manifest, configurationFilename, tree);
    return { staged: stagedBundle({ directory, manifest, ...facts }) };
  } catch (cause) {
    inflater.destroy();
    if (directory !== null) await removeOrWarn(directory, log);
    return { error: toBundleError(cause) };
  }
}

function checkConfiguration({ configFilename }: Manifest, announced: FileName, tree: MemberTree): void {
  if (configFilename !== announced) {
    const names = `${quote(configFilename)}, but the upload announced ${quote(announced)}`;
    throw new ReceiverError('BUNDLE', `the manifest names ${names}`);
  }
  if (!tree.hasFile(configFilename))
    throw new ReceiverError('BUNDLE', `the bundle lacks the configuration ${quote(configFilename)}`);
  // Whatever disk the bundle comes to later, these two must be the ones that were checked.
  for (const name of [configFilename, manifestFile]) {
    const twin = tree.twinOf(name);
    if (twin === undefined) continue;
    throw new ReceiverError(
      'BUNDLE',
      `the members ${quote(name)} and ${quote(twin)} have the same name on some file systems`,
    );
  }
}

/** Rewords zlib's errors for the peer. Disk errors stay as they are: a full disk is not the bundle's fault. */
function toBundleError(cause: unknown): unknown {
  const code = systemCode(cause);
  if (code === 'EILSEQ') {
    const message = "a name in the bundle is not UTF-8, but the build server's disk accepts only UTF-8 names";
    return new ReceiverError('BUNDLE', message, { code }, { cause });
  }
  if (isReceiverError(cause) || !code?.startsWith('Z_')) return cause;
  const how = code === 'Z_BUF_ERROR' ? 'truncated' : 'damaged';
  return new ReceiverError('BUNDLE', `the gzip stream is ${how}`, { code }, { cause });
}
