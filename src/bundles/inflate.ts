/**
 * The gzip layer of a bundle: bytes in as they come, pieces out as they are asked for, with the expansion watched
 * while it happens. A bomb is found after a few megabytes and not when the disk is full.
 *
 * It inflates in the thread that calls it, which costs a third of the way through the pool of threads and back. Node's
 * gunzip reads several gzip streams in a row as one and drops zeros behind the last; a bundle is exactly one stream,
 * so both are refused.
 */
import { Gunzip } from 'minizlib';

import { ReceiverError } from '../errors.js';
import { createCondition } from '../async/condition.js';
import type { BundleLimits } from '../options/core-options.js';

export interface Inflater {
  /**
   * False asks for a wait, and that the bytes do not change until there is room. After the end or an error they are
   * dropped. Never throws.
   */
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

/** Inflated at a time. Deflate makes at most 1,032 bytes of one, so 33 MiB are the most before a limit is looked at. */
const sliceBytes = 32 * 1024;
/** Missing in the types of minizlib, which hands it on to zlib. */
const options: object = { chunkSize: 128 * 1024 };
/** The last four bytes of a gzip stream: its unpacked length modulo 2^32. */
const lengthBytes = 4;

export function createInflater(limits: BundleLimits): Inflater {
  const gunzip = new Gunzip(options);
  const most = streamBytes(limits);
  let output: Buffer[] = [];
  let failure: unknown = null;
  let queued: Buffer[] = [];
  let isEnded = false;
  let isOver = false;
  let packed = 0;
  let unpacked = 0;
  let tail: Buffer = Buffer.alloc(0);
  const { until, wake } = createCondition();
  gunzip.on('data', (piece: Buffer) => void output.push(piece));
  gunzip.on('error', (error) => void (failure ??= error));

  function destroy(): void {
    isOver = true;
    queued = [];
    gunzip.close();
    wake();
  }

  /** What has come out since the last call. Throws what went wrong. */
  function taken(): Buffer[] {
    if (failure !== null) throw failure;
    const pieces = output;
    output = [];
    for (const piece of pieces) unpacked += piece.length;
    if (unpacked > most) throw refused(`the archive unpacks to more than ${most} bytes`);
    if (unpacked > limits.ratioFreeBytes && unpacked > packed * limits.ratio) {
      throw refused(`the archive is packed more than ${limits.ratio} to one`);
    }
    return pieces;
  }

  async function* inflated(): AsyncGenerator<Buffer, void> {
    for (;;) {
      await until(() => queued.length > 0 || isEnded || isOver);
      const bytes = queued[0];
      if (bytes === undefined) break;
      for (let at = 0; at < bytes.length; at += sliceBytes) {
        if (isOver) break;
        const slice = bytes.subarray(at, at + sliceBytes);
        packed += slice.length;
        tail = Buffer.concat([tail, slice.subarray(-lengthBytes)]).subarray(-lengthBytes);
        gunzip.write(slice);
        yield* taken();
        // Of one write: how much of it the engine took.
        if (gunzip.handle?.bytesWritten !== slice.length)
          throw refused('the archive is damaged: there are bytes after its gzip stream');
      }
      queued.shift();
      wake();
    }
    if (isOver) throw refused('the archive is not read to its end');
    gunzip.end();
    yield* taken();
  }

  return {
    write(bytes) {
      if (isOver || isEnded) return true;
      queued.push(bytes);
      wake();
      return false;
    },
    end() {
      isEnded = true;
      wake();
    },
    room: () => until(() => queued.length === 0 || isOver),
    async *pieces() {
      try {
        yield* inflated();
      } finally {
        destroy();
      }
    },
    destroy,
    fault() {
      const isWhole = tail.length === lengthBytes && tail.readUInt32LE() === unpacked % 2 ** 32;
      return isWhole ? null : 'it is more than one gzip stream';
    },
  };
}

function refused(message: string): ReceiverError {
  return new ReceiverError('BUNDLE', message);
}

/** Headers, padding and long names: what the stream may hold for each member beside its bytes. */
const overheadBytes = 4_096;

/** The most bytes that the unpacked stream may have, tar's own included. */
function streamBytes(limits: BundleLimits): number {
  return limits.unpackedBytes + (limits.members + 8) * overheadBytes;
}
