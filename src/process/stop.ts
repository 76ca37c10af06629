/**
 * Ends a session to its last process: time to go by itself, then KILL to the group and to every process of the
 * session, again and again until none is left. Killing the group alone leaves compilers that write object files
 * for another 20 s, and the next build would find them at work in its directory.
 *
 * The group is never killed first while there is grace: ninja passes TERM on to its compilers and removes what
 * they have half written, and it cannot do that when it is killed.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { hasProc, isOfThisBoot, type ProcessStat, readStat, type ProcessIdentity } from './identity.js';

export interface StopReport {
  /** True when something had to be killed because it did not go by itself in time. */
  readonly forced: boolean;
  /** Live processes that could not be ended: another account's, or stuck in the kernel. Normally 0. */
  readonly survivors: number;
}

/** How long killed processes may take to go before they count as survivors. */
const killMs = 5_000;
const firstPauseMs = 5;
const longestPauseMs = 50;

/**
 * Waits until a session that the caller has watched since its start is empty; from `killAt()` on (a time of
 * `performance.now()`, asked again at each look) it kills. Returns at the latest 5 s after the first kill.
 */
export function awaitEnd(session: SessionIdentity, killAt: () => number): Promise<StopReport> {
  return end(hasProc() ? () => lookAtSession(session, true) : () => lookAtGroup(session.pid), killAt);
}

/** Asks the leader's group to end: the first, friendly step. */
export function terminateGroup(session: SessionIdentity): void {
  const look = hasProc() ? lookAtSession(session, true) : lookAtGroup(session.pid);
  look.signalGroup('SIGTERM');
}

/**
 * Ends what a dead receiver has left of a session. Touches only what provably belongs to it: nothing when the
 * identity is of another boot, no process whose number has been given to a stranger.
 */
export async function endSession(session: SessionIdentity): Promise<StopReport> {
  if (!isOfThisBoot(session)) return { forced: false, survivors: 0 };
  return end(
    () => lookAtSession(session, false),
    () => 0,
  );
}

/** What one look has found. */
interface Look {
  readonly left: number;
  signalGroup(signal: NodeJS.Signals): void;
  killAll(): void;
}

async function end(look: () => Look, killAt: () => number): Promise<StopReport> {
  let killedAt: number | undefined;
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
    const found = look();
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

function lookAtSession(session: SessionIdentity, watched: boolean): Look {
  let members: readonly ProcessStat[];
  try {
    members = sessionMembers(session, { watched });
  } catch {
    return blind;
  }
  return {
    left: members.length,
    signalGroup(signal) {
      // The number belongs to our group exactly as long as one of our members is in it.
      if (members.some((member) => member.group === session.pid && member.session === session.pid))
        signalGroup(session.pid, signal);
    },
    killAll() {
      for (const member of members) signalProcess(member, 'SIGKILL');
    },
  };
}

/** What cannot be seen now, with no descriptor free for instance, counts as running. */
const blind: Look = { left: 1, signalGroup() {}, killAll() {} };

/** The poor man's look, without /proc: only the group can be seen and ended. */
function lookAtGroup(pid: number): Look {
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

/**
 * Who belongs to a build. Ninja gives every compiler a process group of its own, so only the session is common
 * to a build, and a process that has called `setsid` has left that too: it is found by a marker in its
 * environment. The accident that this prevents: a build that counts as ended while its compilers still write
 * (measured: for 20 s after the group was killed).
 */

/** A session that we began: its leader, and the marker that all its processes inherit. */
export interface SessionIdentity extends ProcessIdentity {
  /** The value of {@link markerVariable} in the environment of the session's processes. */
  readonly marker: string;
}

/** The environment variable that marks a build's processes, whatever session they are in. */
export const markerVariable = 'KOA_ESPHOME_RECEIVER_BUILD';

/**
 * The live processes of a session, and those outside it that carry its marker. Empty when the identity is of
 * another boot or there is no `/proc`. Throws system errors other than "no such process".
 *
 * A number names a session as long as one process is left in it, and may then be given to a stranger. So a
 * member counts when the leader is still there with its start time, or when the member carries the marker.
 * `watched` says that the caller has looked at this session without a pause since its leader lived: then the
 * number cannot have changed hands, and a member that has cleaned its environment counts as well.
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

/** Reads the environment that the process was started with; another account's cannot be read and is not ours. */
function carriesMarker(pid: number, marker: string): boolean {
  try {
    return marker !== '' && readFileSync(`/proc/${pid}/environ`).includes(`${markerVariable}=${marker}`);
  } catch {
    return false;
  }
}

/** Sends a signal to a process that was found before, unless its number has changed hands meanwhile. */
export function signalProcess(member: ProcessStat, signal: NodeJS.Signals): void {
  try {
    if (readStat(member.pid)?.startTime === member.startTime) process.kill(member.pid, signal);
  } catch {
    // Gone meanwhile, or another account's: the next look tells.
  }
}
