/**
 * The gzip layer of a bundle: bytes in as they come, pieces out as they are asked for, with the expansion watched
 * while it happens. A bomb is found after a few megabytes and not when the disk is full.
 *
 * Node's gunzip reads several gzip streams in a row as one and drops zeros behind the last; a bundle is exactly
 * one stream, so both are refused.
 */
import { createGunzip } from 'node:zlib';

import { ReceiverError } from '../errors.js';
import { streamBytes, type BundleLimits } from './limits.js';

export interface Inflater {
  /** False asks for a wait. After the end or an error the bytes are dropped. Never throws. */
  write(bytes: Buffer): boolean;
  end(): void;
  /** Resolves when there is room, or when nothing will be read any more. */
  room(): Promise<void>;
  /** The unpacked bytes, once. Throws `BUNDLE` past a limit, and zlib's own errors. */
  pieces(): AsyncGenerator<Buffer, void>;
  /** Ends everything; `pieces` throws then. */
  destroy(): void;
  /** After the last piece: what is wrong with the stream as a whole, or null. */
  fault(): string | null;
}

/** Bytes that zlib's thread gets at a time; each hand-over costs as much as inflating some tens of kilobytes. */
const batchBytes = 256 * 1024;
/** A piece ends where a batch ends, so with the same size for both every batch would give two. */
const buffering = { chunkSize: 2 * batchBytes, writableHighWaterMark: 2 * batchBytes };
/** The last four bytes of a gzip stream: its unpacked length modulo 2^32. */
const lengthBytes = 4;

export function createInflater(limits: BundleLimits): Inflater {
  const gunzip = createGunzip(buffering);
  gunzip.on('error', () => undefined); // the reader of the pieces sees it too, but may not have begun
  const most = streamBytes(limits);
  let packed = 0;
  let unpacked = 0;
  let tail: Buffer = Buffer.alloc(0);
  let batch: Buffer[] = [];
  let batched = 0;

  function flush(): boolean {
    const bytes = Buffer.concat(batch, batched);
    batch = [];
    batched = 0;
    return gunzip.destroyed || gunzip.writableEnded || gunzip.write(bytes);
  }

  return {
    write(bytes) {
      packed += bytes.length;
      tail = Buffer.concat([tail, bytes.subarray(-lengthBytes)]).subarray(-lengthBytes);
      batch.push(bytes);
      batched += bytes.length;
      return batched < batchBytes || flush();
    },
    end() {
      flush();
      gunzip.end();
    },
    async room() {
      if (!gunzip.writableNeedDrain) return;
      await new Promise<void>((resolve) => {
        const done = (): void => {
          gunzip.off('drain', done).off('close', done);
          resolve();
        };
        gunzip.on('drain', done).on('close', done);
      });
    },
    async *pieces() {
      for await (const piece of gunzip as AsyncIterable<Buffer>) {
        unpacked += piece.length;
        if (unpacked > most) throw refused(`the archive unpacks to more than ${most} bytes`);
        if (unpacked > limits.ratioFreeBytes && unpacked > gunzip.bytesWritten * limits.ratio) {
          throw refused(`the archive is packed more than ${limits.ratio} to one`);
        }
        yield piece;
      }
    },
    destroy: () => void gunzip.destroy(),
    fault() {
      if (packed !== gunzip.bytesWritten) return 'there are bytes after its gzip stream';
      const whole = tail.length === lengthBytes && tail.readUInt32LE() === unpacked % 2 ** 32;
      return whole ? null : 'it is more than one gzip stream';
    },
  };
}

function refused(message: string): ReceiverError {
  return new ReceiverError('BUNDLE', message);
}
