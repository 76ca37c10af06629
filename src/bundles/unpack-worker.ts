/**
 * The thread's side: runs the intakes that it is told of. Uploads share the thread and do not wait for each other,
 * except while one of them writes.
 */
import { parentPort, type MessagePort } from 'node:worker_threads';

import { systemClock as clock } from '../async/clock.js';
import { createSerialQueue, type SerialQueue } from '../async/serial-queue.js';
import { silentLog, type Log } from '../log.js';
import { openIntake, type BundleIntake } from './intake.js';
import { packError, plain, type FromThread, type ToThread } from './unpack-messages.js';

interface ThreadUpload {
  readonly intake: BundleIntake;
  /** One buffer after the other, and then the end. */
  readonly turns: SerialQueue;
}

const port = parentPort as MessagePort;
const uploads = new Map<number, ThreadUpload>();

function tell(message: FromThread, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer);
}

port.on('message', (message: ToThread) => {
  if (message.type === 'open') {
    const { upload, uploadsDir, name, configurationFilename, bundleLimits } = message;
    const warn: Log['warn'] = (facts, text) => tell({ type: 'warning', upload, facts: plain(facts), text });
    const log = { ...silentLog, warn };
    const intake = openIntake({ uploadsDir, name, configurationFilename, bundleLimits, clock, log });
    uploads.set(upload, { intake, turns: createSerialQueue() });
    return;
  }
  const upload = uploads.get(message.upload);
  if (message.type === 'abort') void abort(message.upload, upload);
  else if (message.type === 'bytes') void upload?.turns.run(() => take(upload.intake, message));
  else void upload?.turns.run(() => finish(message.upload, upload.intake));
});

async function take(
  intake: BundleIntake,
  { upload, buffer, length }: ToThread & { type: 'bytes' },
): Promise<void> {
  if (!intake.write(Buffer.from(buffer, 0, length))) await intake.drain();
  tell({ type: 'taken', upload, buffer }, [buffer]);
}

async function finish(number: number, intake: BundleIntake): Promise<void> {
  try {
    const { directory, manifest, bytes, members, remoteContent, contentSha256 } = await intake.finish();
    const facts = { directory, manifest, bytes, members, remoteContent, contentSha256 };
    tell({ type: 'finished', upload: number, facts });
  } catch (error) {
    tell({ type: 'failed', upload: number, error: packError(error) });
  }
  uploads.delete(number);
}

async function abort(number: number, upload: ThreadUpload | undefined): Promise<void> {
  await upload?.intake.abort();
  uploads.delete(number);
  tell({ type: 'aborted', upload: number });
}
