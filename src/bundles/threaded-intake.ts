/**
 * Unpacks bundles in a worker thread, one for all uploads of the process: the main thread only copies bytes into
 * buffers and transfers them. So neither a hanging disk nor an archive made to cost time stops a lock's heartbeat or
 * another session, and while 128 MiB arrive the receiver does little more than decrypt.
 *
 * The thread returns each buffer after use. That provides the back-pressure, and keeps an upload's memory constant.
 */
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

import { createCondition } from '../async/signals.js';
import { temporaryName } from '../disk/names.js';
import { ReceiverError } from '../errors.js';
import { silentLog } from '../log.js';
import type { BundleIntake, IntakeOptions } from './intake.js';
import { stagedBundle, type NoRoom, type StagedBundle, type StagingRoom } from './store.js';
import { removeOrWarn, unpackError, type FromThread, type ToThread } from './unpack-messages.js';

/** Large enough to make transfers cheap, small enough to unpack the last one quickly. */
const bufferBytes = 128 * 1024;
/** Buffers of one upload in transit while another one is being filled. */
const maxOut = 2;
/** The room that one request asks for. */
const roomStepBytes = 1_048_576;

type Ending =
  | { readonly kind: 'staged'; readonly staged: StagedBundle }
  | { readonly kind: 'failed'; readonly error: Error }
  | { readonly kind: 'aborted' };

export interface ThreadedIntakeOptions extends Pick<
  IntakeOptions,
  'uploadsDir' | 'configurationFilename' | 'bundleLimits' | 'log'
> {
  /** Where the bundle takes its room, until it is discarded. Default: there is always room. */
  readonly room?: StagingRoom | undefined;
  /** Called at once when there is no more room; `finish` then throws `RESOURCE`. */
  readonly onRefused?: ((why: NoRoom) => void) | undefined;
}

/** Like `openIntake`, with the same guarantees. */
export function openThreadedIntake(options: ThreadedIntakeOptions): BundleIntake {
  const { uploadsDir, configurationFilename, bundleLimits, room, log = silentLog } = options;
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

  const upload = thread.open({ hear, died: (error) => void removeStaging(error) });
  thread.tell({ type: 'open', upload, uploadsDir, name, configurationFilename, bundleLimits });

  function hear(message: FromThread): void {
    if (message.type === 'warning') return log.warn(message.facts, message.text);
    if (message.type === 'taken') {
      out -= 1;
      free.push(message.buffer);
    } else if (message.type === 'room') {
      return giveRoom(message.neededBytes);
    } else if (message.type === 'finished') {
      ending = { kind: 'staged', staged: stagedBundle({ ...message.facts, room }) };
    } else if (message.type === 'failed') {
      ending = { kind: 'failed', error: unpackError(message.error) };
    } else {
      isAnswered = true;
      ending ??= { kind: 'aborted' };
    }
    if (ending !== null && ending.kind !== 'staged') room?.release();
    if (ending !== null && (aborting === null || isAnswered)) thread.close(upload);
    wake();
  }

  /** One request covers many members, unless the room is almost used up. */
  function giveRoom(neededBytes: number): void {
    const wanted = Math.max(neededBytes, roomStepBytes);
    if (room === undefined || room.take(wanted) === null)
      return thread.tell({ type: 'granted', upload, bytes: wanted });
    const refusal = room.take(neededBytes);
    if (refusal === null) return thread.tell({ type: 'granted', upload, bytes: neededBytes });
    thread.tell({ type: 'refused', upload, message: `${refusal.reason}: ${refusal.detail}` });
    options.onRefused?.(refusal);
  }

  /** Does the cleanup that the dead thread no longer can. */
  async function removeStaging(error: ReceiverError): Promise<void> {
    const directory = join(uploadsDir, name);
    log.error({ directory, err: error.cause }, 'unpacking thread died');
    await removeOrWarn(directory, log);
    room?.release();
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

type UnpackThread = ReturnType<typeof startThread>;

interface ThreadListener {
  hear(message: FromThread): void;
  /** Called instead of `close` when the thread dies. */
  died(error: ReceiverError): void;
}

let current: UnpackThread | null = null;

/**
 * The process's thread. The first bundle starts it, and an idle thread keeps no process alive. If it dies, its
 * uploads fail and the next bundle starts a new one.
 */
export function unpackThread(): UnpackThread {
  current ??= startThread();
  return current;
}

function startThread() {
  const worker = startWorker();
  const listeners = new Map<number, ThreadListener>();
  let last = 0;

  function end(cause: unknown): void {
    if (current === thread) current = null;
    const orphans = [...listeners.values()];
    listeners.clear();
    for (const listener of orphans) {
      listener.died(new ReceiverError('STATE', 'the unpacking thread died', {}, { cause }));
    }
  }

  worker.on('message', (message: FromThread) => listeners.get(message.upload)?.hear(message));
  worker.on('error', end);
  worker.on('exit', () => end(undefined));
  worker.unref();

  const thread = {
    /** Returns the upload's number. The listener hears the thread's messages about it until `close`. */
    open(listener: ThreadListener): number {
      last += 1;
      listeners.set(last, listener);
      worker.ref();
      return last;
    },
    close(upload: number): void {
      listeners.delete(upload);
      if (listeners.size === 0) worker.unref();
    },
    /** The thread owns what is transferred. A dead thread ignores messages. */
    tell: (message: ToThread, transfer: readonly ArrayBuffer[] = []) => worker.postMessage(message, transfer),
  };
  return thread;
}

/**
 * Resolves the worker against its folder, because the build merges this file into another one. When the sources run
 * as TypeScript the thread needs a loader of its own, because the main thread's does not reach it.
 */
function startWorker(): Worker {
  const own = import.meta.url;
  if (!own.endsWith('.ts'))
    return new Worker(new URL('../bundles/unpack-worker.js', own), { resourceLimits });
  const loader = new URL('../../scripts/tsx-in-thread.mjs', own);
  return new Worker(new URL('unpack-worker.ts', own), {
    ...{ resourceLimits, execArgv: ['--import', loader.href] },
  });
}

/** Short-lived objects pass through here, and V8 would reserve 30 MiB for them. */
const resourceLimits = { maxYoungGenerationSizeMb: 4 };
