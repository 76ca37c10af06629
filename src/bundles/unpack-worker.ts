/**
 * The thread's side: runs the intakes that it is told of. Uploads share the thread and do not wait for each other,
 * except while one of them writes.
 */
import { parentPort, type MessagePort } from 'node:worker_threads';

import { silentLog, type Log } from '../log.js';
import { openIntake, type BundleIntake } from './intake.js';
import { packError, plain, type FromThread, type ToThread } from './unpack-messages.js';

interface ThreadUpload {
  readonly intake: BundleIntake;
  /** The bytes that are on their way in, one buffer after the other. Never rejects. */
  last: Promise<void>;
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
    const intake = openIntake({ uploadsDir, name, configurationFilename, bundleLimits, log });
    uploads.set(upload, { intake, last: Promise.resolve() });
    return;
  }
  const upload = uploads.get(message.upload);
  if (message.type === 'abort') void abort(message.upload, upload);
  else if (upload !== undefined && message.type === 'bytes') upload.last = take(upload, message);
  else if (upload !== undefined) void finish(message.upload, upload);
});

async function take(
  { intake, last }: ThreadUpload,
  { upload, buffer, length }: ToThread & { type: 'bytes' },
): Promise<void> {
  await last;
  if (!intake.write(Buffer.from(buffer, 0, length))) await intake.drain();
  tell({ type: 'taken', upload, buffer }, [buffer]);
}

async function finish(number: number, { intake, last }: ThreadUpload): Promise<void> {
  await last;
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
