/**
 * The intake of a bundle that is unpacked by the thread: here its bytes are only gathered and handed over.
 *
 * They travel in a few buffers that the thread gives back when they are used up. That is where the back-pressure
 * comes from, and why an upload costs the same memory whatever its size.
 */
import { join } from 'node:path';

import { temporaryName } from '../disk/temporary.js';
import { messageOf, ReceiverError } from '../errors.js';
import { silentLog } from '../log.js';
import { createCondition } from './condition.js';
import type { BundleIntake, IntakeOptions } from './intake.js';
import { defaultBundleLimits } from './limits.js';
import { removeOrWarn } from './remove-or-warn.js';
import { stagedBundle, type StagedBundle } from './staged.js';
import { unpackError, type FromThread } from './unpack-messages.js';
import { unpackThread } from './unpack-thread.js';

/** Large enough that handing them over costs little, small enough that the last one is soon unpacked. */
const bufferBytes = 128 * 1024;
/** Buffers of one upload on their way, while another one is filled. */
const maxOut = 2;

type Ending =
  | { readonly kind: 'staged'; readonly staged: StagedBundle }
  | { readonly kind: 'failed'; readonly error: Error }
  | { readonly kind: 'aborted' };

/** As `openIntake`, with the same promises. */
export function openThreadedIntake(
  options: Pick<IntakeOptions, 'uploadsDir' | 'configurationFilename' | 'limits' | 'log'>,
): BundleIntake {
  const { uploadsDir, configurationFilename, limits = defaultBundleLimits, log = silentLog } = options;
  const name = temporaryName();
  const thread = unpackThread();
  const free: ArrayBuffer[] = [];
  let filling: Uint8Array | null = null;
  let filled = 0;
  let out = 0;
  let ending: Ending | null = null;
  let aborting: Promise<void> | null = null;
  let isAnswered = false;
  let isHandedOver = false;
  const { until, wake } = createCondition();

  const upload = thread.open({ hear, died: (error) => void removeRest(error) });
  thread.tell({ type: 'open', upload, uploadsDir, name, configurationFilename, limits });

  function hear(message: FromThread): void {
    if (message.type === 'warning') return log.warn(message.facts, message.text);
    if (message.type === 'taken') {
      out -= 1;
      free.push(message.buffer);
    } else if (message.type === 'finished') {
      ending = { kind: 'staged', staged: stagedBundle(message.facts) };
    } else if (message.type === 'failed') {
      ending = { kind: 'failed', error: unpackError(message.error) };
    } else {
      isAnswered = true;
      ending ??= { kind: 'aborted' };
    }
    if (ending !== null && (aborting === null || isAnswered)) thread.close(upload);
    wake();
  }

  /** A dead thread cannot do it any more. */
  async function removeRest(error: ReceiverError): Promise<void> {
    const directory = join(uploadsDir, name);
    log.error({ directory, error: messageOf(error.cause) }, 'the unpacking thread has died');
    await removeOrWarn(directory, log);
    ending = { kind: 'failed', error };
    isAnswered = true;
    wake();
  }

  function handOver(): void {
    if (filling === null) return;
    const buffer = filling.buffer as ArrayBuffer;
    thread.tell({ type: 'bytes', upload, buffer, length: filled }, [buffer]);
    filling = null;
    filled = 0;
    out += 1;
  }

  async function abort(): Promise<void> {
    if (ending === null) {
      thread.tell({ type: 'abort', upload });
      await until(() => isAnswered);
    }
    if (ending?.kind === 'staged') await ending.staged.discard();
  }

  return {
    write(bytes) {
      if (ending !== null || aborting !== null) return true;
      for (let at = 0; at < bytes.length;) {
        filling ??= new Uint8Array(free.pop() ?? new ArrayBuffer(bufferBytes));
        const part = bytes.subarray(at, at + bufferBytes - filled);
        filling.set(part, filled);
        filled += part.length;
        at += part.length;
        if (filled === bufferBytes) handOver();
      }
      return out < maxOut;
    },
    drain: () => until(() => out < maxOut || ending !== null || aborting !== null),
    async finish() {
      if (ending === null && aborting === null) {
        handOver();
        thread.tell({ type: 'finish', upload });
        await until(() => ending !== null);
      }
      if (aborting !== null) {
        await aborting;
        throw new ReceiverError('CANCELLED', 'the upload was cancelled');
      }
      if (ending?.kind !== 'staged')
        throw ending?.kind === 'failed' ? ending.error : new TypeError('unreachable');
      isHandedOver = true;
      return ending.staged;
    },
    async abort() {
      if (!isHandedOver) await (aborting ??= abort());
    },
  };
}
