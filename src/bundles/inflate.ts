/**
 * The gzip layer of a bundle. It checks the expansion while it inflates, so a bomb fails after a few megabytes and
 * not when the disk is full.
 *
 * It inflates in the calling thread, which costs a third of the trip through the thread pool. Node's gunzip
 * concatenates several gzip streams and drops zeros after the last; a bundle is exactly one stream, so both are refused.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';

import { Gunzip } from 'minizlib';

import { ReceiverError } from '../errors.js';
import { createCondition } from '../async/signals.js';
import type { BundleLimits } from '../options/core-options.js';

export type Inflater = ReturnType<typeof createInflater>;

/**
 * How long one upload works before the thread turns to the others: a few packed bytes can hold 20,000 files, which take
 * seconds to write.
 */
const turnMs = 10;
/** Inflated at a time. Deflate expands a byte to at most 1,032, so at most 33 MiB come before the limits apply. */
const sliceBytes = 32 * 1024;
/** Missing in minizlib's types, but passed on to zlib. */
const options: object = { chunkSize: 128 * 1024 };
/** The last four bytes of a gzip stream: its unpacked length modulo 2^32. */
const lengthBytes = 4;

export function createInflater(limits: BundleLimits) {
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
  let turnBegan = performance.now();
  const { until, wake } = createCondition();
  gunzip.on('data', (piece: Buffer) => void output.push(piece));
  gunzip.on('error', (error) => void (failure ??= error));

  /** Stops reading; `pieces` then throws. */
  function destroy(): void {
    isOver = true;
    queued = [];
    gunzip.close();
    wake();
  }

  /** Takes the output since the last call, and throws if zlib failed or a limit is exceeded. */
  function takeOutput(): Buffer[] {
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

  /** Passes each piece to the reader, and yields to other uploads from time to time. */
  async function* inTurns(pieces: readonly Buffer[]): AsyncGenerator<Buffer, void> {
    for (const piece of pieces) {
      if (isOver) return;
      yield piece;
      if (performance.now() - turnBegan < turnMs) continue;
      await nextTurn();
      turnBegan = performance.now();
    }
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
        // What zlib consumed of this one write.
        const consumed = gunzip.handle?.bytesWritten;
        yield* inTurns(takeOutput());
        if (!isOver && consumed !== slice.length)
          throw refused('the archive is damaged: there are bytes after its gzip stream');
      }
      queued.shift();
      wake();
    }
    if (isOver) throw refused('unpacking stopped before the end of the archive');
    gunzip.end();
    yield* inTurns(takeOutput());
  }

  return {
    /** False means: wait for `room`, and do not change the bytes until then. Drops them after the end. Never throws. */
    write(bytes: Buffer): boolean {
      if (isOver || isEnded) return true;
      queued.push(bytes);
      wake();
      return false;
    },
    end(): void {
      isEnded = true;
      wake();
    },
    /** Resolves when there is room, or when reading has stopped. */
    room: () => until(() => queued.length === 0 || isOver),
    /** The unpacked bytes; iterate them once. Throws `BUNDLE` past a limit, and zlib's errors. */
    async *pieces(): AsyncGenerator<Buffer, void> {
      try {
        yield* inflated();
      } finally {
        destroy();
      }
    },
    destroy,
    /** After the last piece: what is wrong with the stream as a whole, or null. */
    fault(): string | null {
      const isWhole = tail.length === lengthBytes && tail.readUInt32LE() === unpacked % 2 ** 32;
      return isWhole ? null : 'it is more than one gzip stream';
    },
  };
}

function refused(message: string): ReceiverError {
  return new ReceiverError('BUNDLE', message);
}

/** Allowance for each member's header, padding and long name. */
const overheadBytes = 4_096;

/** Limit for the unpacked stream, including tar's overhead. */
function streamBytes(limits: BundleLimits): number {
  return limits.unpackedBytes + (limits.members + 8) * overheadBytes;
}
