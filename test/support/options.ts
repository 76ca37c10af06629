/** What a receiver gives its parts when its host sets nothing, for tests that make a part by itself. */
import { lockTiming } from '../../src/locks/lease.js';

export const defaultTiming = lockTiming(10_000);
