/**
 * Splits a program's output into lines, as raw bytes: LF, CR and CRLF each end a line, which keeps its terminator. One
 * line's limit bounds the memory, so a program that never ends its line cannot fill it. A character split between two
 * chunks stays intact, and a CRLF split between them counts as one line end.
 */

export interface LineSplitterOptions {
  /** At least 4. A longer line is delivered in pieces of at most this many bytes, cut between code points. */
  readonly maxLineBytes: number;
  /** Gets each line or piece with its terminator, invalid UTF-8 replaced by U+FFFD. Must not throw. */
  readonly onLine: (line: string) => void;
}

const lf = 10;
const cr = 13;

/** The lines together are always the input decoded as UTF-8. Chunks are not kept after the call. */
export function createLineSplitter({ maxLineBytes, onLine }: LineSplitterOptions) {
  let rest = Buffer.alloc(0);

  /** Delivers pieces of a line over the limit; returns where the remainder begins. */
  function deliverPieces(bytes: Buffer, from: number, to: number): number {
    let at = from;
    while (to - at > maxLineBytes) {
      const cut = cutBefore(bytes, at + maxLineBytes);
      onLine(bytes.toString('utf8', at, cut));
      at = cut;
    }
    return at;
  }

  return {
    push(chunk: Buffer): void {
      const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      let at = 0;
      // The rest contains no terminator, except a CR at its very end which waits for its LF.
      let nextLf = bytes.indexOf(lf, Math.max(0, rest.length - 1));
      let nextCr = bytes.indexOf(cr, Math.max(0, rest.length - 1));
      for (;;) {
        if (nextLf !== -1 && nextLf < at) nextLf = bytes.indexOf(lf, at);
        if (nextCr !== -1 && nextCr < at) nextCr = bytes.indexOf(cr, at);
        const stop = nextCr === -1 || (nextLf !== -1 && nextLf < nextCr) ? nextLf : nextCr;
        if (stop === -1) break;
        if (stop === nextCr && stop + 1 === bytes.length) break;
        const end = nextLf === stop + 1 ? stop + 2 : stop + 1;
        at = deliverPieces(bytes, at, end);
        onLine(bytes.toString('utf8', at, end));
        at = end;
      }
      at = deliverPieces(bytes, at, bytes.length);
      rest = Buffer.from(bytes.subarray(at));
    },
    /** Delivers the last line if it has no terminator. */
    end(): void {
      if (rest.length > 0) onLine(rest.toString('utf8'));
      rest = Buffer.alloc(0);
    },
  };
}

/** The last position up to `at` that splits neither a code point nor a CRLF; `at` itself in invalid UTF-8. */
function cutBefore(bytes: Buffer, at: number): number {
  if (bytes[at] === lf && bytes[at - 1] === cr) return at - 1;
  for (let back = 0; back < 4; back += 1) {
    if ((bytes[at - back]! & 0xc0) !== 0x80) return at - back;
  }
  return at;
}
