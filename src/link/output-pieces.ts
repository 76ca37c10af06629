/**
 * Cuts a line of output so that each frame stays under 48 kB of JSON: the original client closes the session at a
 * message of 60 KiB, and one endless line of a compiler would then cost the whole build (Device Builder 1.26).
 */

/** Room for the line inside one frame, escapes counted; the rest is for the frame's other fields. */
const maxEscapedBytes = 47_000;
/** The most that one UTF-16 unit can cost, as `\u001b`. */
const worstUnitBytes = 6;

/** The pieces, in order; together they are the line. Cuts stand between code points. */
export function outputPieces(line: string): readonly string[] {
  if (line.length * worstUnitBytes <= maxEscapedBytes) return [line];
  const pieces: string[] = [];
  let start = 0;
  let cost = 0;
  for (let at = 0; at < line.length;) {
    const point = line.codePointAt(at) as number;
    const next = escapedBytes(point);
    if (cost + next > maxEscapedBytes) {
      pieces.push(line.slice(start, at));
      start = at;
      cost = 0;
    }
    cost += next;
    at += point > 0xffff ? 2 : 1;
  }
  pieces.push(line.slice(start));
  return pieces;
}

/** What `JSON.stringify` makes of a code point, in bytes of UTF-8; never less. */
function escapedBytes(point: number): number {
  if (point < 0x20) return worstUnitBytes;
  if (point === 0x22 || point === 0x5c) return 2;
  if (point < 0x80) return 1;
  if (point < 0x800) return 2;
  if (point >= 0xd800 && point <= 0xdfff) return worstUnitBytes;
  return point < 0x1_0000 ? 3 : 4;
}
