/**
 * Ends a session to its last process: time to go by itself, then KILL to the group and to every process of the
 * session, again and again until none is left. Killing the group alone leaves compilers that write object files
 * for another 20 s, and the next build would find them at work in its directory.
 *
 * The group is never killed first while there is grace: ninja passes TERM on to its compilers and removes what
 * they have half written, and it cannot do that when it is killed.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import { hasProc, isOfThisBoot, type ProcessStat } from './identity.js';
import { sessionMembers, signalProcess, type SessionIdentity } from './session-scan.js';

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
