/**
 * How much a tree holds. Links are counted as links and not followed, so that a planted one can neither inflate
 * a figure nor lead out of the tree.
 */
import { lstat, opendir } from 'node:fs/promises';
import { join } from 'node:path';

import { systemCode } from '../errors.js';

export interface Usage {
  /** Sum of the files' sizes, in bytes. */
  readonly bytes: number;
  readonly files: number;
}

/** Measures `path`; nothing there, or vanishing meanwhile, counts as nothing. */
export async function measure(path: string): Promise<Usage> {
  let bytes = 0;
  let files = 0;
  const waiting = [path];
  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
    try {
      const stat = await lstat(at);
      if (stat.isDirectory()) {
        for await (const entry of await opendir(at)) waiting.push(join(at, entry.name));
      } else {
        bytes += stat.size;
        files += 1;
      }
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw error;
    }
  }
  return { bytes, files };
}
