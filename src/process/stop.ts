/**
 * Stops a session to its last process: a grace period, then KILL to the group and to every process of the session,
 * repeated until none is left. Ninja gives every compiler its own process group, so killing the group alone leaves
 * compilers that write for another 20 s (measured) into the directory of the next build. A process that called `setsid`
 * has also left the session, so a marker in the environment identifies it.
 *
 * The group is never killed before the grace is over: ninja passes TERM on to its compilers and removes their
 * half-written files, which it cannot do when it is killed.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { hasProc, isOfThisBoot, type ProcessStat, readStat, type ProcessIdentity } from './identity.js';

export interface StopReport {
  /** True when a process had to be killed because it did not end in time. */
  readonly forced: boolean;
  /** Live processes that could not be killed: another account's, or stuck in the kernel. Normally 0. */
  readonly survivors: number;
}

/** Time for killed processes to disappear before they count as survivors. */
const killMs = 5_000;
const firstPauseMs = 5;
const longestPauseMs = 50;

/**
 * Waits until a session that the caller has watched since its start is empty, and kills from `killAt()` on (a time of
 * `performance.now()`, called again for each scan). Returns at most 5 s after the first kill.
 */
export function awaitEnd(session: SessionIdentity, killAt: () => number): Promise<StopReport> {
  return stopAll(hasProc() ? () => scanSession(session, true) : () => scanGroup(session.pid), killAt);
}

/** Sends TERM to the leader's group: the first, polite step. */
export function terminateGroup(session: SessionIdentity): void {
  const scan = hasProc() ? scanSession(session, true) : scanGroup(session.pid);
  scan.signalGroup('SIGTERM');
}

/**
 * Stops the processes that a dead receiver left of a session. Touches only those that provably belong to it: nothing
 * when the identity is of another boot, and no process with a reused pid.
 */
export async function endSession(session: SessionIdentity): Promise<StopReport> {
  if (!isOfThisBoot(session)) return { forced: false, survivors: 0 };
  return stopAll(
    () => scanSession(session, false),
    () => 0,
  );
}

/** The live processes of one scan. */
interface Scan {
  readonly left: number;
  signalGroup(signal: NodeJS.Signals): void;
  killAll(): void;
}

async function stopAll(scan: () => Scan, killAt: () => number): Promise<StopReport> {
  let killedAt: number | undefined;
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
    const found = scan();
    const forced = killedAt !== undefined;
    if (found.left === 0) return { forced, survivors: 0 };
    const now = performance.now();
    if (killedAt !== undefined && now - killedAt > killMs) return { forced, survivors: found.left };
    if (now >= killAt()) {
      if (killedAt === undefined) {
        found.signalGroup('SIGKILL');
        killedAt = now;
        pauseMs = firstPauseMs;
      }
      found.killAll();
    }
    await sleep(pauseMs);
  }
}

function scanSession(session: SessionIdentity, watched: boolean): Scan {
  let members: readonly ProcessStat[];
  try {
    members = sessionMembers(session, { watched });
  } catch {
    return blind;
  }
  return {
    left: members.length,
    signalGroup(signal) {
      // The number is still this group's if a member of the session is in it.
      if (members.some((member) => member.group === session.pid && member.session === session.pid))
        signalGroup(session.pid, signal);
    },
    killAll() {
      for (const member of members) signalProcess(member, 'SIGKILL');
    },
  };
}

/** A failed scan, for instance with no descriptor free, counts as a running process. */
const blind: Scan = { left: 1, signalGroup() {}, killAll() {} };

/** The fallback without /proc, which sees and kills only the group. */
function scanGroup(pid: number): Scan {
  return {
    left: signalGroup(pid, 0) ? 1 : 0,
    signalGroup: (signal) => void signalGroup(pid, signal),
    killAll: () => void signalGroup(pid, 'SIGKILL'),
  };
}

function signalGroup(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-pid, signal);
    return true;
  } catch {
    return false;
  }
}

/** A session of the receiver's: its leader, and the marker that all its processes inherit. */
export interface SessionIdentity extends ProcessIdentity {
  /** The value of {@link markerVariable} in the environment of the session's processes. */
  readonly marker: string;
}

/** The environment variable that marks a build's processes in any session. */
export const markerVariable = 'KOA_ESPHOME_RECEIVER_BUILD';

/**
 * The live processes of a session, and those outside it that carry its marker. Empty when the identity is of another
 * boot or there is no `/proc`. Throws system errors other than "no such process".
 *
 * The kernel can reuse a session's number once its last process is gone. So a process counts as a member when the
 * leader still exists with its start time, or when the process carries the marker. `watched` says that the caller has
 * scanned this session without a gap since its leader was alive: then the number cannot have been reused, and a member
 * that cleared its environment counts as well.
 */
export function sessionMembers(identity: SessionIdentity, { watched = false } = {}): readonly ProcessStat[] {
  if (!isOfThisBoot(identity)) return [];
  const leader = readStat(identity.pid);
  const ours = leader ? leader.startTime === identity.startTime : watched;
  const members: ProcessStat[] = [];
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const stat = readStat(pid);
    if (!stat?.alive || stat.startTime < identity.startTime) continue;
    if ((ours && stat.session === identity.pid) || carriesMarker(pid, identity.marker)) members.push(stat);
  }
  return members;
}

/** Reads the process's initial environment. Another account's is unreadable, and its process is not the build's. */
function carriesMarker(pid: number, marker: string): boolean {
  try {
    return marker !== '' && readFileSync(`/proc/${pid}/environ`).includes(`${markerVariable}=${marker}`);
  } catch {
    return false;
  }
}

/** Sends a signal to a process of an earlier scan, unless its pid was reused since. */
export function signalProcess(member: ProcessStat, signal: NodeJS.Signals): void {
  try {
    if (readStat(member.pid)?.startTime === member.startTime) process.kill(member.pid, signal);
  } catch {
    // Gone, or another account's: the next scan decides.
  }
}
