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
