/** The options of a receiver whose host sets none, for parts of it that a test makes by itself. */
import { lockTiming, resolveOptions } from '../../src/options/core.js';

export const defaultOptions = resolveOptions({ configDir: '/config' });
export const defaultTiming = lockTiming(defaultOptions.lockStaleMs);
