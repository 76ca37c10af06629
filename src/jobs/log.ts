/**
 * Passes a job's output to its log and its followers, limited to a number of bytes.
 *
 * A build that prints endlessly must not fill the disk, the memory or a peer's connection. The beginning passes at
 * once; of the rest only the last lines, at the end, since those say why it failed. A disk error must not fail the
 * build: the log stops, and the build continues.
 */
import { createWriteStream, mkdirSync, type WriteStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { finished } from 'node:stream/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { systemCode } from '../errors.js';
import type { Log } from '../log.js';

export interface JobLogOptions {
  /** The most bytes that pass; as many can wait in memory for a slow disk. */
  readonly maxOutputBytes: number;
  /** Receives each line that passes, with its terminator, and one notice when the limit is reached. Must not throw. */
  readonly onLine: (line: string) => void;
  readonly log: Log;
}

export type JobLog = ReturnType<typeof openJobLog>;

/** How much of the end of a long output is kept; less under a low limit. */
const maxTailBytes = 262_144;
/** Lines that pass before other work runs. */
const linesPerTurn = 200;

/**
 * Opens the log of a job. The file is created with the first line and replaces that of an earlier attempt: thousands
 * of jobs can wait, and a process does not have that many descriptors. Never throws.
 */
export function openJobLog(file: string, { maxOutputBytes, onLine, log }: JobLogOptions) {
  const tailBytes = Math.min(maxTailBytes, Math.floor(maxOutputBytes / 4));
  let left = maxOutputBytes - tailBytes;
  let lineEnd = '\n';
  let tail: ReturnType<typeof createTail> | undefined;
  let stream: WriteStream | undefined;
  let done: Promise<void> | undefined;
  let isWritable = true;

  function open(): WriteStream {
    try {
      // Somebody could have removed it since the job's record was stored.
      mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    } catch {
      // The stream reports what is wrong.
    }
    const opened = createWriteStream(file, { mode: 0o600 });
    done = finished(opened).catch((error: unknown) => {
      isWritable = false;
      log.warn({ file, err: error }, 'job log write failed');
    });
    return opened;
  }

  function keep(line: string): void {
    stream ??= open();
    if (isWritable) stream.write(line);
  }

  function notice(text: string): string {
    return `${/[\r\n]/.test(lineEnd) ? '' : '\n'}[${text}]\n`;
  }

  return {
    /** Takes a line with its terminator. Never throws and never waits. */
    write(line: string): void {
      left -= Buffer.byteLength(line);
      if (left < 0 && tail === undefined) {
        tail = createTail(tailBytes);
        onLine(notice('output limit reached: only the last lines follow, at the end'));
      }
      if (tail !== undefined) return tail.add(line);
      lineEnd = line.slice(-1);
      keep(line);
      onLine(line);
    },
    /** Passes on the last lines of a long output; resolves when all is on disk. Never rejects. */
    async close(): Promise<void> {
      const { lines, dropped } = tail?.take() ?? { lines: [], dropped: 0 };
      if (dropped > 0) keep(notice(`${dropped} lines omitted: the output exceeded its limit`));
      for (const [index, line] of lines.entries()) {
        keep(line);
        onLine(line);
        if (index % linesPerTurn === linesPerTurn - 1) await nextTurn();
      }
      stream?.end();
      await done;
    },
  };
}

/** The memory cost of a line besides its bytes. */
const lineCostBytes = 32;

/** The last lines, in two halves; the older half is dropped when the newer one is full. */
function createTail(maxBytes: number) {
  let older: string[] = [];
  let newer: string[] = [];
  let newerBytes = 0;
  let dropped = 0;
  return {
    add(line: string): void {
      const bytes = Buffer.byteLength(line) + lineCostBytes;
      if (newerBytes + bytes > maxBytes / 2) {
        dropped += older.length;
        older = newer;
        newer = [];
        newerBytes = 0;
      }
      newer.push(line);
      newerBytes += bytes;
    },
    take: () => ({ lines: [...older, ...newer], dropped }),
  };
}

export function jobLogFile(dir: string, id: string): string {
  return join(dir, `${id}.log`);
}

/** The log so far; empty when there is none. Throws other system errors. */
export async function readJobLog(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return '';
    throw error;
  }
}
