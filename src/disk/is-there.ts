/**
 * Whether something lies at a path, a link that leads nowhere included. What cannot be looked at counts as there: whoever
 * asks would otherwise forget, or build upon, what somebody has only locked away.
 */
import { lstat } from 'node:fs/promises';

import { systemCode } from '../errors.js';

export async function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    (error: unknown) => !['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? ''),
  );
}
