/**
 * Cuts the bytes of a bundle or a result into chunks, and turns announced chunks back into bytes, by rules that both sides
 * apply in the same order (Device Builder 1.26). Only a running hash is kept: the bytes of each chunk are passed on at
 * once, so a transfer of 128 MiB costs no memory, and they are valid only after `complete`.
 */
import { createHash } from 'node:crypto';

/** The largest bundle of the wire, compressed. */
export const maxBundleBytes = 128 * 1024 * 1024;
/** The raw size of every chunk except the last. */
export const chunkBytes = 32 * 1024;

/** In the words of the wire. */
export type TransferRefusal =
  | 'empty_bundle'
  | 'chunk_decode_failed'
  | 'out_of_order'
  | 'oversized'
  | 'chunk_count_mismatch'
  | 'undersized'
  | 'hash_mismatch'
  | 'post_completion';

export interface BundleAnnouncement {
  readonly totalBytes: number;
  readonly numChunks: number;
  /** Hexadecimal, in upper or lower case. */
  readonly sha256: string;
}

export interface Chunk {
  readonly index: number;
  readonly dataBase64: string;
  readonly isLast: boolean;
}

export type ChunkResult =
  | { readonly ok: true; readonly bytes: Buffer; readonly complete: boolean }
  /** `fatal`: the session must end too, because the two sides disagree about the state of the transfer. */
  | { readonly ok: false; readonly reason: TransferRefusal; readonly fatal: boolean };

/** Checks the sizes of an announcement in the order of the wire; null when valid. */
export function announcementFault(
  announced: Pick<BundleAnnouncement, 'totalBytes' | 'numChunks'>,
  limitBytes: number,
): TransferRefusal | null {
  if (!(announced.totalBytes > 0)) return 'empty_bundle';
  if (!(announced.numChunks > 0)) return 'chunk_count_mismatch';
  return announced.totalBytes > limitBytes ? 'oversized' : null;
}

export type Assembler = ReturnType<typeof createAssembler>;

/** Starts a transfer whose announcement is valid. */
export function createAssembler(announced: BundleAnnouncement) {
  const hash = createHash('sha256');
  const expected = announced.sha256.toLowerCase();
  const decodeBase64 = createBase64Decoder();
  let next = 0;
  let received = 0;
  let over = false;

  function check(chunk: Chunk): ChunkResult {
    if (over) return refuse('post_completion', false);
    const bytes = decodeBase64(chunk.dataBase64);
    if (bytes === null) return refuse('chunk_decode_failed', true);
    if (chunk.index !== next) return refuse('out_of_order', true);
    next += 1;
    received += bytes.length;
    if (received > announced.totalBytes) return refuse('oversized', false);
    const complete = next === announced.numChunks;
    if (chunk.isLast !== complete) return refuse('chunk_count_mismatch', true);
    hash.update(bytes);
    if (!complete) return { ok: true, bytes, complete };
    if (received !== announced.totalBytes) return refuse('undersized', false);
    if (hash.digest('hex') !== expected) return refuse('hash_mismatch', false);
    return { ok: true, bytes, complete };
  }

  return {
    /** Checks and decodes the next chunk. Refuses all chunks after a refusal or the last chunk. Never throws. */
    push(chunk: Chunk): ChunkResult {
      const result = check(chunk);
      over ||= !result.ok || result.complete;
      return result;
    },
  };
}

function refuse(reason: TransferRefusal, fatal: boolean): ChunkResult {
  return { ok: false, reason, fatal };
}

/** Decoded chunks share this buffer: allocating one for each costs as much as decoding it. */
const slabBytes = 8 * chunkBytes;

/**
 * Creates a decoder of strict standard base64: the alphabet, exact padding, no white space. It returns null for anything
 * else. Unused bits can be set, as on the other side.
 */
export function createBase64Decoder(): (text: string) => Buffer | null {
  let slab: Buffer = Buffer.alloc(0);

  return (text) => {
    if (slab.length < text.length) slab = Buffer.allocUnsafeSlow(Math.max(slabBytes, text.length));
    const length = slab.write(text, 'base64');
    if (!isStrict(text, length)) return null;
    const bytes = slab.subarray(0, length);
    slab = slab.subarray(length);
    return bytes;
  };
}

/**
 * Node's decoder skips unknown characters and stops at padding, so invalid base64 gives fewer bytes than its length
 * implies. It also accepts the URL alphabet, and the lower half of a wide character.
 */
function isStrict(text: string, decodedLength: number): boolean {
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  if (text.length % 4 !== 0 || decodedLength !== (text.length / 4) * 3 - padding) return false;
  return !text.includes('-') && !text.includes('_') && Buffer.byteLength(text) === text.length;
}

/**
 * Yields chunks of exactly `size` bytes for any pieces of the source, because the other side counts them, and a last one
 * with the rest. Yields nothing for an empty source.
 */
export async function* inChunks(
  source: Iterable<Buffer> | AsyncIterable<Buffer>,
  size: number,
): AsyncGenerator<Buffer, void> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const piece of source) {
    const bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    let at = 0;
    for (; bytes.length - at >= size; at += size) yield bytes.subarray(at, at + size);
    rest = bytes.subarray(at);
  }
  if (rest.length > 0) yield rest;
}
