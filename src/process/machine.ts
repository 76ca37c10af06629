/**
 * Measures the processors and memory that the receiver can use, and computes the defaults from them. Inside a container
 * the usual calls report the whole machine, and the kernel kills compilers that were started for that size. It also
 * says whether this machine can run a file.
 */
import { access, constants, stat as statFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { availableParallelism, totalmem, hostname } from 'node:os';
import { join, posix } from 'node:path';

/** The kernel's directories; they exist only on Linux. */
export interface KernelRoots {
  readonly proc: string;
  readonly cgroup: string;
}

export interface Machine {
  /** At least 1. Counts affinity and the CPU quota of control groups (version 2), rounded up. */
  readonly cores: number;
  readonly memoryBytes: number;
}

interface MemoryGroup {
  readonly limit: number;
  readonly used: number;
  /** File pages, which the kernel drops when memory is needed. */
  readonly droppable: number;
}

const kernelRoots: KernelRoots = { proc: '/proc', cgroup: '/sys/fs/cgroup' };

/** The machine's totals, or the lowest limit. */
export function machineOf(roots: KernelRoots = kernelRoots): Machine {
  const quotas = groupsOf(roots).unified.map((group) => quotaOf(read(join(group, 'cpu.max'))));
  const limits = memoryGroups(roots).map(({ limit }) => limit);
  return {
    cores: Math.max(1, Math.ceil(Math.min(availableParallelism(), ...quotas))),
    memoryBytes: Math.min(totalmem(), ...limits),
  };
}

/** Memory that programs can still allocate without displacing others; null where the kernel does not report it. */
export function freeMemoryBytes(roots: KernelRoots = kernelRoots): number | null {
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(read(join(roots.proc, 'meminfo')))?.[1];
  if (kibibytes === undefined) return null;
  const left = memoryGroups(roots).map(({ limit, used, droppable }) => limit - used + droppable);
  return Math.max(0, Math.min(Number(kibibytes) * 1024, ...left));
}

function memoryGroups(roots: KernelRoots): MemoryGroup[] {
  const { unified, memory } = groupsOf(roots);
  return [
    ...unified.map((group) => memoryGroup(group, ['memory.max', 'memory.current', 'inactive_file'])),
    ...memory.map((group) =>
      memoryGroup(group, ['memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file']),
    ),
  ].flatMap((group) => group ?? []);
}

/** Null for a group without a limit, or one that is not visible here. */
function memoryGroup(
  directory: string,
  [limitFile, usedFile, statName]: readonly [string, string, string],
): MemoryGroup | null {
  const limit = numberIn(read(join(directory, limitFile)));
  const used = numberIn(read(join(directory, usedFile)));
  if (limit === null || used === null) return null;
  const stat = new RegExp(`^${statName} (\\d+)$`, 'm').exec(read(join(directory, 'memory.stat')))?.[1];
  return { limit, used, droppable: Number(stat ?? 0) };
}

/** In processors; infinite without a quota. */
function quotaOf(text: string): number {
  const [, quota, period] = /^(\d+) (\d+)\s*$/.exec(text) ?? [];
  return quota === undefined || Number(period) === 0 ? Infinity : Number(quota) / Number(period);
}

/**
 * The directories of the process's control groups up to the root, because the limit of each applies. In a container,
 * the files name a group outside of it, which is not visible; the root represents it there.
 */
function groupsOf({ proc, cgroup }: KernelRoots): { readonly unified: string[]; readonly memory: string[] } {
  const lines = read(join(proc, 'self', 'cgroup')).split('\n');
  const within = (root: string, isOurs: (controllers: string) => boolean): string[] =>
    lines.flatMap((line) => {
      const [, controllers = '', path = ''] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
      return path !== '' && isOurs(controllers) ? upwards(path).map((group) => join(root, group)) : [];
    });
  return {
    unified: within(cgroup, (controllers) => controllers === ''),
    memory: within(join(cgroup, 'memory'), (controllers) => controllers.split(',').includes('memory')),
  };
}

/** `/a/b`, `/a`, `/`. */
function upwards(path: string): string[] {
  const paths = [path];
  for (let at = path; at !== '/'; at = posix.dirname(at)) paths.push(posix.dirname(at));
  return paths;
}

function numberIn(text: string): number | null {
  return /^\d+\s*$/.test(text) ? Number(text) : null;
}

/** Synchronous, because these files are in memory. Empty when the file does not exist. */
function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

export const maxLanes = 16;
export const maxSlots = 64;
export const maxNameLength = 128;

const coresPerSlot = 4;
const memoryPerSlotBytes = 3_000_000_000;

/**
 * One slot for every 4 processors and 3 GB of memory, at least one. A build then has enough processors to be fast, and
 * memory for as many compilers. With a slot for each processor, a single build would crawl and eight builds would fill
 * the memory.
 */
export function defaultSlots({ cores, memoryBytes }: Machine): number {
  const most = Math.min(Math.floor(cores / coresPerSlot), Math.floor(memoryBytes / memoryPerSlotBytes));
  return Math.min(Math.max(1, most), maxSlots);
}

/**
 * Limit for one build's concurrent compilers, rounded up; null with one slot, where the build tool's own choice is
 * right. It depends only on what stays the same from one build to the next.
 */
export function compilersPerBuild(slots: number, { cores }: Machine): number | null {
  return slots === 1 ? null : Math.ceil(cores / slots);
}

/** The first label of the host name, as Device Builder shows it. */
export function machineName(): string {
  return hostname().split('.', 1)[0]?.trim().slice(0, maxNameLength) || 'esphome-dashboard';
}

/** Whether `file` is an executable file, and not a directory, which has the same permission bit. */
export async function isExecutable(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return (await statFile(file)).isFile();
  } catch {
    return false;
  }
}
