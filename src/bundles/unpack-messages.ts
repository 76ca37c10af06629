/**
 * The messages between the receiver and its unpacking thread, and what else both sides need. An error is packed
 * here to keep its code: a structured clone keeps only message and stack, so a full disk would look like a damaged
 * bundle.
 */
import { removeTree } from '../disk/remove.js';
import {
  isReceiverError,
  messageOf,
  ReceiverError,
  systemCode,
  type ErrorCode,
  type Facts,
} from '../errors.js';
import type { Log } from '../log.js';
import type { BundleLimits } from '../options/core-options.js';
import type { FileName } from '../paths/index.js';
import type { StagedFacts } from './store.js';

/** `upload` is a number that a thread never reuses. */
export type ToThread =
  | {
      readonly type: 'open';
      readonly upload: number;
      readonly uploadsDir: string;
      readonly name: string;
      readonly configurationFilename: FileName;
      readonly bundleLimits: BundleLimits;
    }
  /** The first `length` bytes of a buffer, which `taken` returns after use. */
  | { readonly type: 'bytes'; readonly upload: number; readonly buffer: ArrayBuffer; readonly length: number }
  /** The end of the bytes. Answered by `finished` or `failed`. */
  | { readonly type: 'finish'; readonly upload: number }
  /** Answered by `aborted`. */
  | { readonly type: 'abort'; readonly upload: number }
  /** The answer to `room`. */
  | { readonly type: 'granted'; readonly upload: number; readonly bytes: number }
  | { readonly type: 'refused'; readonly upload: number; readonly message: string };

export type FromThread =
  | { readonly type: 'taken'; readonly upload: number; readonly buffer: ArrayBuffer }
  /** Asks for room on the disk. One request at a time. */
  | { readonly type: 'room'; readonly upload: number; readonly neededBytes: number }
  | { readonly type: 'finished'; readonly upload: number; readonly facts: StagedFacts }
  | { readonly type: 'failed'; readonly upload: number; readonly error: SentError }
  | { readonly type: 'aborted'; readonly upload: number }
  | { readonly type: 'warning'; readonly upload: number; readonly facts: Facts; readonly text: string };

export type SentError =
  | { readonly kind: 'ours'; readonly code: ErrorCode; readonly message: string; readonly facts: Facts }
  | { readonly kind: 'other'; readonly code: string | undefined; readonly message: string };

export function packError(error: unknown): SentError {
  const message = messageOf(error);
  if (!isReceiverError(error)) return { kind: 'other', code: systemCode(error), message };
  return { kind: 'ours', code: error.code, message, facts: plain(error.facts) };
}

export function unpackError(sent: SentError): Error {
  if (sent.kind === 'ours') return new ReceiverError(sent.code, sent.message, sent.facts);
  const { code, message } = sent;
  return Object.assign(new Error(message), code !== undefined && { code });
}

/** Facts as a message can carry them: an error becomes its stack, another object its JSON. */
export function plain(facts: Facts): Facts {
  const shown = Object.entries(facts).map(([key, value]) => {
    if (value instanceof Error) return [key, value.stack ?? messageOf(value)];
    return [key, typeof value === 'object' ? JSON.stringify(value) : value];
  });
  return Object.fromEntries(shown) as Facts;
}

/**
 * Removes a staging directory. Never rejects. It is here and not in the intake because the main thread needs it when
 * the unpacking thread has died, and would otherwise load all of the unpacking code at startup.
 */
export async function removeOrWarn(directory: string, log: Log): Promise<void> {
  try {
    await removeTree(directory);
  } catch (error) {
    log.warn({ err: error, directory }, 'bundle removal failed, the next start tries again');
  }
}
