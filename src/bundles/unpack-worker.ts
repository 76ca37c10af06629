/**
 * The worker's side of the unpacking: runs one intake for each upload. Uploads share the thread and wait for each
 * other only while one of them writes.
 */
import { parentPort, type MessagePort } from 'node:worker_threads';

import { systemClock as clock } from '../async/clock.js';
import { createSerialQueue, type SerialQueue } from '../async/calls.js';
import { ReceiverError } from '../errors.js';
import { silentLog, type Log } from '../log.js';
import { openIntake, type BundleIntake, type IntakeOptions } from './intake.js';
import { packError, plain, type FromThread, type ToThread } from './unpack-messages.js';

interface ThreadUpload {
  readonly intake: BundleIntake;
  /** Keeps the buffers and the end in order. */
  readonly queue: SerialQueue;
  /** The request for room that is not answered yet. */
  asked: { grant(bytes: number): void; refuse(error: ReceiverError): void } | undefined;
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
    const takeRoom: IntakeOptions['takeRoom'] = (neededBytes) =>
      new Promise((grant, refuse) => {
        opened.asked = { grant, refuse };
        tell({ type: 'room', upload, neededBytes });
      });
    const intake = openIntake({
      ...{ uploadsDir, name, configurationFilename, bundleLimits, takeRoom, clock, log },
    });
    const opened: ThreadUpload = { intake, queue: createSerialQueue(), asked: undefined };
    uploads.set(upload, opened);
    return;
  }
  const upload = uploads.get(message.upload);
  if (message.type === 'granted') upload?.asked?.grant(message.bytes);
  else if (message.type === 'refused') upload?.asked?.refuse(new ReceiverError('RESOURCE', message.message));
  else if (message.type === 'abort') void abortUpload(message.upload, upload);
  else if (message.type === 'bytes') void upload?.queue.run(() => writeBytes(upload.intake, message));
  else void upload?.queue.run(() => finishUpload(message.upload, upload.intake));
});

async function writeBytes(
  intake: BundleIntake,
  { upload, buffer, length }: ToThread & { type: 'bytes' },
): Promise<void> {
  if (!intake.write(Buffer.from(buffer, 0, length))) await intake.drain();
  tell({ type: 'taken', upload, buffer }, [buffer]);
}

async function finishUpload(number: number, intake: BundleIntake): Promise<void> {
  try {
    // A message carries no functions.
    const { discard: _, settled: _settled, defer: _defer, room: _room, ...facts } = await intake.finish();
    tell({ type: 'finished', upload: number, facts });
  } catch (error) {
    tell({ type: 'failed', upload: number, error: packError(error) });
  }
  uploads.delete(number);
}

async function abortUpload(number: number, upload: ThreadUpload | undefined): Promise<void> {
  await upload?.intake.abort();
  uploads.delete(number);
  tell({ type: 'aborted', upload: number });
}
