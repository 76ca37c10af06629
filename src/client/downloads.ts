/**
 * Downloads the result of a build. Every rule of the stream is checked on arrival, and the caller gets no result before
 * the hash has matched. A slow disk slows the sender and does not fill this process's memory.
 */
import { createWriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';

import { maxArtifactBytes } from '../artifacts/collect.js';
import { announcementFault, createAssembler, type Assembler } from '../protocol/transfer.js';
import { quote, ReceiverError } from '../errors.js';
import type { OffloaderChannel } from '../protocol/channel.js';
import type { FrameOf } from '../protocol/frames.js';
import { createSerialQueue } from '../async/calls.js';

/** The most received bytes that wait for the disk. */
const maxWaitingBytes = 1_048_576;

export interface SavedArtifacts {
  /** Size of the archive, a gzip-compressed tar. */
  readonly size: number;
  /** Lower-case hex. */
  readonly sha256: string;
  /** The flash offset of the firmware for a serial upload: `0x10000` for the esp32 family, otherwise `0x0`. */
  readonly firmwareOffset: string;
}

export interface Artifacts extends SavedArtifacts {
  readonly bytes: Buffer;
}

interface Download {
  readonly jobId: string;
  readonly stream: Readable;
  announced?: SavedArtifacts;
  assembler?: Assembler;
  isComplete: boolean;
}

export function createDownloads(channel: OffloaderChannel) {
  const queue = createSerialQueue();
  let current: Download | undefined;
  let paused = false;
  let ended: ReceiverError | undefined;
  /** Resolves when the receiver has ended the previous download, which continues there if it failed here. */
  let previous: Promise<void> = Promise.resolve();
  let endPrevious = (): void => {};

  function resume(): void {
    if (!paused) return;
    paused = false;
    channel.resume();
  }

  /** Requests a job's result and passes its bytes to `consume` as a stream, which fails when a rule is broken. */
  async function download<T>(
    jobId: string,
    consume: (stream: Readable) => Promise<T>,
  ): Promise<{ readonly announced: SavedArtifacts; readonly consumed: T }> {
    await previous;
    if (ended !== undefined) throw ended;
    previous = new Promise((resolve) => (endPrevious = resolve));
    const stream = new Readable({ highWaterMark: maxWaitingBytes, read: resume });
    const own: Download = { jobId, stream, isComplete: false };
    current = own;
    try {
      channel.send({ type: 'download_artifacts', job_id: jobId });
      const consumed = await consume(stream);
      const { announced } = own;
      if (announced === undefined) throw new ReceiverError('STATE', 'the download ended without a start');
      return { announced, consumed };
    } finally {
      stream.destroy();
      resume();
    }
  }

  /** The running download, if it is that of the job. */
  function runningOf(jobId: string): Download | undefined {
    return current?.jobId === jobId && !current.stream.destroyed ? current : undefined;
  }

  return {
    toMemory: (jobId: string): Promise<Artifacts> =>
      queue.run(async () => {
        const { announced, consumed: bytes } = await download(jobId, buffer);
        return { ...announced, bytes };
      }),
    toFile: (jobId: string, path: string): Promise<SavedArtifacts> =>
      queue.run(async () => {
        const unfinished = `${path}.part`;
        try {
          const { announced } = await download(jobId, (stream) =>
            pipeline(stream, createWriteStream(unfinished)),
          );
          await rename(unfinished, path);
          return announced;
        } catch (error) {
          await rm(unfinished, { force: true });
          throw error;
        }
      }),
    start(frame: FrameOf<'artifacts_start'>): void {
      const running = runningOf(frame.job_id);
      if (running === undefined) return;
      const { total_bytes: totalBytes, num_chunks: numChunks, artifacts_sha256: sha256 } = frame;
      const fault = announcementFault({ totalBytes, numChunks }, maxArtifactBytes);
      if (fault !== null || running.announced !== undefined)
        return failDownload(running, fault ?? 'two starts');
      running.announced = {
        size: totalBytes,
        sha256: sha256.toLowerCase(),
        firmwareOffset: frame.firmware_offset,
      };
      running.assembler = createAssembler({ totalBytes, numChunks, sha256 });
    },
    chunk(frame: FrameOf<'artifacts_chunk'>): void {
      const running = runningOf(frame.job_id);
      if (running === undefined) return;
      const { chunk_index: index, data_b64: dataBase64, is_last: isLast } = frame;
      const result = running.assembler?.push({ index, dataBase64, isLast });
      if (result === undefined) return failDownload(running, 'a chunk before the start');
      if (!result.ok) return failDownload(running, result.reason);
      running.isComplete = result.complete;
      if (result.bytes.length > 0 && !running.stream.push(result.bytes) && !paused) {
        paused = true;
        channel.pause();
      }
    },
    finish(frame: FrameOf<'artifacts_end'>): void {
      if (frame.job_id === current?.jobId) endPrevious();
      const running = runningOf(frame.job_id);
      if (running === undefined) return;
      if (!frame.accepted) return void running.stream.destroy(refused(frame));
      if (!running.isComplete) return failDownload(running, 'an end before the last chunk');
      running.stream.push(null);
    },
    /** Whether reading is paused until the disk catches up. */
    isPaused: () => paused,
    end(error: ReceiverError): void {
      ended = error;
      endPrevious();
      current?.stream.destroy(error);
    },
  };
}

function failDownload({ stream, jobId }: Download, rule: string): void {
  stream.destroy(new ReceiverError('PROTOCOL', `the download broke a rule: ${rule}`, { jobId, rule }));
}

function refused({ job_id: jobId, reason, detail }: FrameOf<'artifacts_end'>): ReceiverError {
  const why = [reason, detail].filter((text) => text !== undefined).map(quote);
  const message = ['the receiver refused the download', ...why].join(': ');
  return new ReceiverError('REJECTED', message, { jobId, reason, detail });
}
