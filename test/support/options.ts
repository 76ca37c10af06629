/** The options of a receiver whose host sets none, for parts of it that a test makes by itself. */
import { lockTiming } from '../../src/locks/lease.js';
import { resolveOptions } from '../../src/options/resolve.js';

export const defaultOptions = resolveOptions({ configDir: '/config' });
export const defaultTiming = lockTiming(defaultOptions.lockStaleMs);
