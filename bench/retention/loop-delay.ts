/** How long the event loop of this process is held up while something is done, beside a loop that does nothing. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';

export interface Delays {
  readonly tookMs: number;
  readonly longestMs: number;
  /** The 99.9th percentile. */
  readonly mostMs: number;
}

const resolutionMs = 1;

export async function delaysOf(work: () => Promise<unknown>): Promise<Delays> {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  histogram.enable();
  const begun = performance.now();
  await work();
  const tookMs = performance.now() - begun;
  // The block before the last sample counts as well.
  await pause(5 * resolutionMs);
  histogram.disable();
  const ms = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - resolutionMs);
  return { tookMs, longestMs: ms(histogram.max), mostMs: ms(histogram.percentile(99.9)) };
}

export async function idleDelays(ms: number): Promise<Delays> {
  return delaysOf(() => pause(ms));
}
