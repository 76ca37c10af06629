/**
 * Takes exact amounts out of a stream of chunks, asking for the next chunk only when the last is used up: this is
 * where back-pressure comes from. An end before the amount is a truncated archive and never a short answer.
 */
import { ReceiverError } from '../errors.js';

export interface ByteSource {
  /** Exactly `amount` bytes. The buffer may share memory with the stream's chunk. Throws `BUNDLE` at the end. */
  take(amount: number): Promise<Buffer>;
  /** From one byte to `most` bytes, as they come. Throws `BUNDLE` at the end. */
  takeUpTo(most: number): Promise<Buffer>;
  /** Whatever is there next; empty at the end. */
  takeAny(): Promise<Buffer>;
}

const nothing = Buffer.alloc(0);

export function createByteSource(stream: AsyncIterable<Buffer>): ByteSource {
  const chunks = stream[Symbol.asyncIterator]();
  let rest: Buffer = nothing;

  /** False at the end of the stream. */
  async function fill(): Promise<boolean> {
    while (rest.length === 0) {
      const next = await chunks.next();
      if (next.done) return false;
      rest = next.value;
    }
    return true;
  }

  function cut(most: number): Buffer {
    const piece = rest.subarray(0, most);
    rest = rest.subarray(piece.length);
    return piece;
  }

  async function takeUpTo(most: number): Promise<Buffer> {
    if (!(await fill())) throw new ReceiverError('BUNDLE', 'the archive is truncated');
    return cut(most);
  }

  return {
    takeUpTo,
    async take(amount) {
      if (rest.length >= amount) return cut(amount);
      const pieces: Buffer[] = [];
      for (let left = amount; left > 0;) {
        const piece = await takeUpTo(left);
        pieces.push(piece);
        left -= piece.length;
      }
      return Buffer.concat(pieces);
    },
    async takeAny() {
      await fill();
      return cut(rest.length);
    },
  };
}
