/**
 * Whether a program holds a `flock` on a file. Node cannot take such a lock, but Linux tells who has one; elsewhere the
 * answer is that nobody does.
 */
import { readFile, stat } from 'node:fs/promises';

import { systemCode } from '../errors.js';

/** False for a file that is not there. Throws system errors. */
export async function isFlocked(file: string): Promise<boolean> {
  try {
    const { dev, ino } = await stat(file, { bigint: true });
    const place = `${hex(majorOf(dev))}:${hex(minorOf(dev))}:${ino}`;
    return (await readFile('/proc/locks', 'utf8'))
      .split('\n')
      .some((line) => line.includes(' FLOCK ') && line.split(/\s+/).includes(place));
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false;
    throw error;
  }
}

/** The kernel's two halves of a device number, as `stat` packs them. */
function majorOf(dev: bigint): bigint {
  return ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
}

function minorOf(dev: bigint): bigint {
  return (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
}

function hex(value: bigint): string {
  return value.toString(16).padStart(2, '0');
}
