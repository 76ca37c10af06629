/**
 * The thread that unpacks bundles, one for all uploads of the process. A disk that stands still, or an archive made
 * to cost time, then stops neither the heartbeat of a lock nor anybody's session, and while 128 MiB arrive the
 * receiver does little more than decrypt.
 *
 * It is started by the first bundle and keeps no process alive while it has nothing to do. Should it die, its
 * uploads fail, and the next bundle gets a new one.
 */
import { Worker } from 'node:worker_threads';

import { ReceiverError } from '../errors.js';
import type { FromThread, ToThread } from './unpack-messages.js';

export interface UnpackThread {
  /** Gives an upload its number; the thread's answers to it are told until `close`. */
  open(listener: ThreadListener): number;
  close(upload: number): void;
  /** What it transfers is the thread's from now on. Into a dead thread nothing goes. */
  tell(message: ToThread, transfer?: readonly ArrayBuffer[]): void;
}

export interface ThreadListener {
  hear(message: FromThread): void;
  /** The thread has died; it was opened for nobody any more. */
  died(error: ReceiverError): void;
}

let current: UnpackThread | null = null;

/** The process's thread, started when there is none. */
export function unpackThread(): UnpackThread {
  current ??= startThread();
  return current;
}

function startThread(): UnpackThread {
  const worker = startWorker();
  const listeners = new Map<number, ThreadListener>();
  let last = 0;

  function end(cause: unknown): void {
    if (current === thread) current = null;
    const orphans = [...listeners.values()];
    listeners.clear();
    for (const listener of orphans) {
      listener.died(new ReceiverError('STATE', 'the unpacking has broken off', {}, { cause }));
    }
  }

  worker.on('message', (message: FromThread) => listeners.get(message.upload)?.hear(message));
  worker.on('error', end);
  worker.on('exit', () => end(undefined));
  worker.unref();

  const thread: UnpackThread = {
    open(listener) {
      last += 1;
      listeners.set(last, listener);
      worker.ref();
      return last;
    },
    close(upload) {
      listeners.delete(upload);
      if (listeners.size === 0) worker.unref();
    },
    tell: (message, transfer = []) => worker.postMessage(message, transfer),
  };
  return thread;
}

/**
 * Found from its folder and not from this file, which is part of another one in the built program. When the sources run
 * as TypeScript the thread needs the loader too, which looks after the main thread only.
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

/** What passes through lives shortly, and V8 would keep 30 MiB ready for it. */
const resourceLimits = { maxYoungGenerationSizeMb: 4 };
