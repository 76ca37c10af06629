/** Watches the process that it runs in: the most memory that it held, and how long its event loop was blocked. */
import { monitorEventLoopDelay } from 'node:perf_hooks';

export interface Measured {
  /** Resident, in bytes. */
  readonly peakBytes: number;
  /** The 99th percentile of the event loop's delay, in milliseconds. */
  readonly delayMs: number;
  /** Processor time of all its threads, in milliseconds. */
  readonly cpuMs: number;
}

const sampleMs = 20;
const delayResolutionMs = 1;

export interface Meter {
  /** Forgets what was before. */
  begin(): void;
  end(): Measured;
}

export function startMeter(): Meter {
  const delay = monitorEventLoopDelay({ resolution: delayResolutionMs });
  let peakBytes = 0;
  let cpu = process.cpuUsage();
  let timer: NodeJS.Timeout | undefined;
  const look = (): void => {
    peakBytes = Math.max(peakBytes, process.memoryUsage.rss());
  };
  return {
    begin() {
      peakBytes = 0;
      timer = setInterval(look, sampleMs);
      cpu = process.cpuUsage();
      delay.reset();
      delay.enable();
    },
    end() {
      clearInterval(timer);
      look();
      delay.disable();
      const { user, system } = process.cpuUsage(cpu);
      // The histogram holds the time from one sample to the next.
      const delayMs = Math.max(0, delay.percentile(99) / 1e6 - delayResolutionMs);
      return { peakBytes, delayMs, cpuMs: (user + system) / 1000 };
    },
  };
}
