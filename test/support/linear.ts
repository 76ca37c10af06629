/**
 * Checks that work takes linear time, independent of other load: a limit in milliseconds fails on
 * a busy machine and passes quadratic work on a fast one. So only the processor time of this process counts, and each
 * size is compared with the previous one.
 */
import assert from 'node:assert/strict';

const step = 4;
const steps = 6;
/** Between linear work, which costs 4 times as much for 4 times the size, and quadratic work, which costs 16 times as much. */
const mostFactor = 8;
/** Less time cannot be distinguished from just-in-time compilation or garbage collection. */
const noiseMs = 40;

/**
 * Does the work with a small part of the size, then with four times as much, up to the full size. Throws, naming `what`, at
 * the first size that costs more than eight times as much as the one before, so quadratic work never reaches the full size.
 */
export function assertLinear(work: (size: number) => void, whole: number, what: string): void {
  let before = Infinity;
  for (let size = Math.ceil(whole / step ** steps); ; size = Math.min(size * step, whole)) {
    const most = Math.max(noiseMs, before * mostFactor);
    let cost = cpuMs(work, size);
    for (let again = 0; again < 2 && cost > most; again += 1) cost = Math.min(cost, cpuMs(work, size));
    assert.ok(cost <= most, `${what}: a size of ${size} takes ${cost} ms, a quarter of it ${before} ms`);
    if (size === whole) return;
    before = cost;
  }
}

function cpuMs(work: (size: number) => void, size: number): number {
  const begin = process.cpuUsage();
  work(size);
  const { user, system } = process.cpuUsage(begin);
  return (user + system) / 1_000;
}
