/**
 * Defaults that are computed from the machine, apart from the declarations so that a test can give any machine: how many
 * builds run at once, how many compilers each of them starts, and what the machine is called.
 *
 * Each build gets enough processors to be quick alone, and enough memory for as many compilers: with a slot for each
 * processor, a lone build would crawl and eight builds would fill the memory.
 */
import { hostname } from 'node:os';

import type { Machine } from '../process/machine.js';

export const maxSlots = 64;
export const maxNameLength = 128;

const coresPerSlot = 4;
const memoryPerSlotBytes = 3_000_000_000;

/** One slot for every 4 processors and 3 GB of memory, at least one. */
export function defaultSlots({ cores, memoryBytes }: Machine): number {
  const most = Math.min(Math.floor(cores / coresPerSlot), Math.floor(memoryBytes / memoryPerSlotBytes));
  return Math.min(Math.max(1, most), maxSlots);
}

/**
 * How many compilers one build may run at once, rounded up; null with one slot, where the build tool's own choice is
 * right. It depends on nothing that changes from one build to the next.
 */
export function compilersPerBuild(slots: number, { cores }: Machine): number | null {
  return slots === 1 ? null : Math.ceil(cores / slots);
}

/** The first label of the host name, as Device Builder shows it. */
export function machineName(): string {
  return hostname().split('.', 1)[0]?.trim().slice(0, maxNameLength) || 'esphome-dashboard';
}
