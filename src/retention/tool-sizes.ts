/**
 * How large tools were when somebody looked last: a toolchain has a hundred thousand files, so it is walked seldom, and
 * the figure is on record for the next start and for other receivers.
 */
import { readFile, rm } from 'node:fs/promises';

import * as z from 'zod';

import type { Clock } from '../async/clock.js';
import { writeAtomic } from '../disk/atomic-write.js';
import { measure } from '../disk/usage.js';
import { parseJson } from '../disk/json.js';
import type { Log } from '../log.js';

export interface ToolSize {
  /** Of the volume. */
  readonly bytes: number;
  /** Milliseconds since 1970. */
  readonly measuredAt: number;
  /** What was measured, where that can be replaced by another; otherwise empty. */
  readonly of: string;
}

export interface ToolSizes {
  /** Null as long as nobody has measured it. Never rejects. */
  read(file: string): Promise<ToolSize | null>;
  /** Walks a tree and notes in `file` what it takes. Stops, without a note, when the signal aborts. Never rejects. */
  measure(file: string, tree: Measured, signal: AbortSignal): Promise<void>;
  /** Never rejects. */
  forget(file: string): Promise<void>;
}

export interface Measured {
  readonly path: string;
  readonly of: string;
}

export interface ToolSizesOptions {
  readonly clock: Pick<Clock, 'wall'>;
  readonly log: Log;
}

const schema = z.object({ bytes: z.number().nonnegative(), measuredAt: z.number(), of: z.string() });

export function createToolSizes({ clock, log }: ToolSizesOptions): ToolSizes {
  /** What the disk did not take. */
  const unwritten = new Map<string, ToolSize>();

  return {
    read: async (file) => unwritten.get(file) ?? readNote(file),
    async measure(file, { path, of }, signal) {
      const measuredAt = clock.wall();
      try {
        const { diskBytes: bytes } = await measure(path, { unlock: true, signal });
        const note: ToolSize = { bytes, measuredAt, of };
        unwritten.set(file, note);
        await writeAtomic(file, JSON.stringify(note));
        unwritten.delete(file);
      } catch (error) {
        if (!signal.aborted) log.warn({ path, err: error }, 'tool measurement failed');
      }
    },
    async forget(file) {
      unwritten.delete(file);
      await rm(file, { force: true }).catch(() => {});
    },
  };
}

async function readNote(file: string): Promise<ToolSize | null> {
  try {
    return schema.parse(parseJson(await readFile(file)));
  } catch {
    return null;
  }
}
