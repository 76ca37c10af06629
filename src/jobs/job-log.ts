/**
 * A job's output on disk, for those who come later: at most so many bytes, whatever the build prints.
 *
 * A build that prints without end must fill neither the disk nor the memory, and a disk that refuses must not fail
 * the build: the log then ends, and the build goes on.
 */
import { createWriteStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';

import { systemCode } from '../errors.js';
import type { Log } from '../log.js';

/** Also the most that may wait in memory for a slow disk. */
export const maxJobLogBytes = 8_388_608;

export interface JobLog {
  /** Takes a line with its terminator. Never throws and never waits. */
  write(line: string): void;
  /** Resolves when all is on disk. Never rejects. */
  close(): Promise<void>;
}

/** Begins the log of a job; what an earlier attempt has written is replaced. Never throws. */
export function openJobLog(
  file: string,
  { maxBytes = maxJobLogBytes, log }: { readonly maxBytes?: number; readonly log: Log },
): JobLog {
  const stream = createWriteStream(file, { mode: 0o600 });
  let left = maxBytes;
  const done = finished(stream).catch((error: unknown) => {
    left = 0;
    log.warn({ file, error }, "a job's log cannot be written");
  });
  return {
    write(line) {
      if (left <= 0) return;
      left -= Buffer.byteLength(line);
      stream.write(left > 0 ? line : '\n[the rest of the output is not kept]\n');
    },
    async close() {
      stream.end();
      await done;
    },
  };
}

export function jobLogFile(dir: string, id: string): string {
  return join(dir, `${id}.log`);
}

/** What the log holds by now; empty when there is none. Throws other system errors. */
export async function readJobLog(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return '';
    throw error;
  }
}
