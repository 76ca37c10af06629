/**
 * Turns the chunks of an announced transfer back into its bytes, by the rules that both sides of the peer link
 * follow in the same order (Device Builder 1.26): a bundle on its way in, artifacts on their way back.
 *
 * It keeps nothing but a running hash: the bytes of each chunk are handed on at once, so a transfer of 128 MiB
 * costs no memory. What was handed on is only good once `complete` came.
 */
import { createHash } from 'node:crypto';

/** The largest bundle of the wire, compressed. */
export const maxBundleBytes = 128 * 1024 * 1024;
/** Raw bytes in every chunk but the last. */
export const chunkBytes = 32 * 1024;

/** Why a transfer is refused. The words are those of the wire. */
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
  /** Hexadecimal, in any case. */
  readonly sha256: string;
}

export interface Chunk {
  readonly index: number;
  readonly dataBase64: string;
  readonly isLast: boolean;
}

export type ChunkResult =
  | { readonly ok: true; readonly bytes: Buffer; readonly complete: boolean }
  /** `fatal` says that the session must end as well: the two sides no longer agree on where they are. */
  | { readonly ok: false; readonly reason: TransferRefusal; readonly fatal: boolean };

export interface Assembler {
  /** Takes the next chunk. Never throws. After a refusal or the last chunk every further one is refused. */
  push(chunk: Chunk): ChunkResult;
}

/** Checks the figures of an announcement before any chunk of it, in the order of the wire; null when acceptable. */
export function announcementFault(
  announced: Pick<BundleAnnouncement, 'totalBytes' | 'numChunks'>,
  limitBytes: number,
): TransferRefusal | null {
  if (!(announced.totalBytes > 0)) return 'empty_bundle';
  if (!(announced.numChunks > 0)) return 'chunk_count_mismatch';
  return announced.totalBytes > limitBytes ? 'oversized' : null;
}

/** Starts a transfer whose announcement was acceptable. */
export function createAssembler(announced: BundleAnnouncement): Assembler {
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
    push(chunk) {
      const result = check(chunk);
      over ||= !result.ok || result.complete;
      return result;
    },
  };
}

function refuse(reason: TransferRefusal, fatal: boolean): ChunkResult {
  return { ok: false, reason, fatal };
}

/** Decoded chunks lie in one after the other: a buffer for each costs as much as decoding it. */
const slabBytes = 8 * chunkBytes;

/**
 * Makes a decoder of strict standard base64, which gives the bytes or null: the alphabet, exact padding, no white
 * space. Spare bits may be set, as the other side allows.
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
 * Node's decoder skips what it does not know and stops at padding, so of a text that is not base64 it makes fewer bytes
 * than its length promises. It also takes the alphabet of addresses, and of a wide character its lower half.
 */
function isStrict(text: string, decodedLength: number): boolean {
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  if (text.length % 4 !== 0 || decodedLength !== (text.length / 4) * 3 - padding) return false;
  return !text.includes('-') && !text.includes('_') && Buffer.byteLength(text) === text.length;
}

/**
 * Bytes as they come, cut into the chunks of the wire. The other side counts chunks, so each but the last has
 * exactly the chunk's size, whatever the pieces of the source.
 */

/** Yields chunks of exactly `size` bytes, and a last one with the rest; nothing for an empty source. */
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
