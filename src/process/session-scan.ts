/**
 * Who belongs to a build. Ninja gives every compiler a process group of its own, so only the session is common
 * to a build, and a process that has called `setsid` has left that too: it is found by a marker in its
 * environment. The accident that this prevents: a build that counts as ended while its compilers still write
 * (measured: for 20 s after the group was killed).
 */
import { readdirSync, readFileSync } from 'node:fs';

import { isOfThisBoot, readStat, type ProcessIdentity, type ProcessStat } from './identity.js';

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
