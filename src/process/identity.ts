/**
 * Identifies processes. A busy machine reuses a pid within seconds, so the identity is the pid, the start time and the
 * boot and pid namespace in which the two were read. Otherwise a receiver that starts after a crash could read a pid
 * from a file and kill an unrelated process.
 */
import { closeSync, openSync, readFileSync, readlinkSync, readSync } from 'node:fs';

import { systemCode } from '../errors.js';

/** One process, past or present. Comparable across restarts of the receiver; unknown parts match nothing. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks between boot and start, field 22 of `/proc/PID/stat`; 0 where there is no `/proc`. */
  readonly startTime: number;
  /** The boot, and the pid namespace where it can be read; empty where there is no `/proc`. */
  readonly bootId: string;
}

/** The fields of `/proc/PID/stat` used here. */
export interface ProcessStat {
  readonly pid: number;
  /** False for a zombie and for a process that is being removed: neither holds a file or runs code. */
  readonly alive: boolean;
  readonly group: number;
  readonly session: number;
  readonly startTime: number;
}

/** The identity of a process that exists now, zombies included, or null when it cannot be read. */
export function identify(pid: number): ProcessIdentity | null {
  const stat = readStat(pid);
  return stat && { pid, startTime: stat.startTime, bootId: currentBoot() };
}

/** True when exactly this process still runs. Zombies, reused pids and processes of another boot do not. */
export function isAlive(identity: ProcessIdentity): boolean {
  if (!isOfThisBoot(identity)) return false;
  const stat = readStat(identity.pid);
  return stat !== null && stat.alive && stat.startTime === identity.startTime;
}

/** True when the identity's numbers are valid here: same boot, same pid namespace, and both are known. */
export function isOfThisBoot(identity: ProcessIdentity): boolean {
  return identity.bootId !== '' && identity.bootId === currentBoot();
}

/** True where `/proc` shows processes as on Linux. */
export function hasProc(): boolean {
  try {
    return readStat(process.pid) !== null;
  } catch {
    // It is there, and cannot be read now.
    return true;
  }
}

/**
 * Null when the process does not exist. Throws other system errors: with no descriptor free, a running build must not
 * look like an ended one.
 */
export function readStat(pid: number): ProcessStat | null {
  let file: number | undefined;
  try {
    file = openSync(`/proc/${pid}/stat`, 'r');
    return parseStat(statBuffer.toString('latin1', 0, readSync(file, statBuffer)));
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ESRCH') return null;
    throw error;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** Larger than any such line. A scan reads hundreds of them, and `readFileSync` would take three times as long. */
const statBuffer = Buffer.alloc(2_048);

/**
 * Parses the content of `/proc/PID/stat`. The program's name is in parentheses and can itself contain spaces, line
 * feeds and parentheses, so the fields are counted from the last closing one.
 */
export function parseStat(text: string): ProcessStat | null {
  const pid = Number.parseInt(text, 10);
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state] = fields;
  const [group, session, threads, startTime] = [2, 3, 17, 19].map((index) => Number(fields[index]));
  if (state === undefined || !/^[A-Za-z]$/.test(state)) return null;
  if (![pid, group, session, threads, startTime].every(Number.isSafeInteger)) return null;
  // A process whose first thread has ended shows as a zombie while its other threads still work.
  const alive = state === 'Z' ? threads! > 1 : state !== 'X' && state !== 'x';
  return { pid, alive, group: group!, session: session!, startTime: startTime! };
}

let boot: string | undefined;

function currentBoot(): string {
  if (boot === undefined) {
    const id = attempt(() => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim());
    const namespace = attempt(() => readlinkSync('/proc/self/ns/pid'));
    boot = id && `${id} ${namespace}`.trimEnd();
  }
  return boot;
}

function attempt(read: () => string): string {
  try {
    return read();
  } catch {
    return '';
  }
}
