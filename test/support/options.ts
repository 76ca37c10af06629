/** The default options, for parts of a receiver that a test creates directly. */
import { lockTiming, resolveOptions } from '../../src/options/core.js';

export const defaultOptions = resolveOptions({ configDir: '/config' });
export const defaultTiming = lockTiming(defaultOptions.lockStaleMs);
