/**
 * Two small shell programs that tie a build to the receiver's life.
 *
 * The first stands in for the command until the receiver says go, so that nothing runs before it has been written
 * down. The second waits on a pipe for the receiver's end, in a session of its own so that it is no part of the
 * build. The accident that they prevent: the receiver is killed, its build goes on, the lock goes stale, and a
 * second receiver starts a compiler in the same directory.
 *
 * They are texts for `sh -c`, because a build of this package carries no other files. Both use what every sh has
 * built in; `grep` and `sleep` are used where present.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { ReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import { markerVariable, type SessionIdentity } from './stop.js';

export const shell = '/bin/sh';

/** The line on stdin that lets the held command begin. */
export const goLine = 'go\n';

/**
 * Waits for the line, then becomes the command: same pid, so its exit code and signals are its own. One stream
 * for both outputs keeps their order. The end of stdin instead of the line: the receiver is gone, nothing starts.
 */
export const holdScript = 'IFS= read -r go || exit 125; exec </dev/null 2>&1; exec "$@"';

/** Ends the watch without harm when it reads this line. */
const doneLine = 'done\n';

/**
 * Arguments: leader's pid, its start time, the marker. On the end of stdin it kills the leader's group, then
 * what is left of the session, round after round until a round finds nothing, and then what carries the marker.
 * It touches nothing when the pid has gone to another process. Without /proc it can only kill the group.
 */
const watchScript = `
leader=$1 start=$2 marker=$3
trap '' HUP INT QUIT TERM
while IFS= read -r line; do
  [ "$line" = done ] && exit 0
done
look() { # the session and start time of process $1, and whether it is dead
  text= session= started= dead=
  { while IFS= read -r line; do text=$text$line; done </proc/$1/stat; } 2>/dev/null || return 1
  set -- \${text##*) }
  session=$4 started=\${20}
  case $1\${18} in Z0 | Z1 | X* | x*) dead=1 ;; esac
  [ -n "$started" ]
}
if [ "$start" != 0 ] && look "$leader" && [ "$started" != "$start" ]; then exit 0; fi
kill -s KILL -- "-$leader" 2>/dev/null
[ "$start" = 0 ] && exit 0
rounds=0 found=1
while [ $found = 1 ] && [ $rounds -lt 100 ]; do
  rounds=$((rounds + 1)) found=0
  for place in /proc/[0-9]*; do
    look "\${place#/proc/}" && [ "$session" = "$leader" ] && [ -z "$dead" ] || continue
    found=1
    kill -s KILL "\${place#/proc/}" 2>/dev/null
  done
  for place in $(grep -lsF -- "${markerVariable}=$marker" /proc/[0-9]*/environ 2>/dev/null); do
    place=\${place%/environ}
    found=1
    kill -s KILL "\${place#/proc/}" 2>/dev/null
  done
  [ $found = 1 ] && sleep 0.05 2>/dev/null
done
`;

export interface Watchdog {
  /** Ends the watch: from here on the death of the receiver kills nothing. */
  done(): Promise<void>;
}

/** How long a watchdog may take to leave before it is ended. */
const doneMs = 1_000;

/** Begins to watch over a session. Throws SPAWN when that cannot be done, for a build must not run unwatched. */
export async function watch(session: SessionIdentity, log: Log): Promise<Watchdog> {
  const { pid, startTime, marker } = session;
  const name = 'koa-esphome-receiver-watchdog';
  const child = spawn(shell, ['-c', watchScript, name, String(pid), String(startTime), marker], {
    detached: true,
    cwd: '/',
    env: { PATH: '/usr/bin:/bin' },
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  try {
    // First of all: with no descriptor free there is no stdin, and the error of the spawn comes later.
    const spawned = once(child, 'spawn');
    child.stdin?.on('error', () => {});
    await spawned;
  } catch (cause) {
    throw new ReceiverError('SPAWN', 'the watchdog of a build could not be started', {}, { cause });
  }
  const exit = once(child, 'exit');
  const onEarlyExit = (): void => log.warn({ pid }, 'watchdog died, its build continues unwatched');
  child.once('exit', onEarlyExit);
  return {
    async done() {
      child.off('exit', onEarlyExit);
      child.stdin.end(doneLine);
      const timer = setTimeout(() => child.kill('SIGKILL'), doneMs);
      await exit;
      clearTimeout(timer);
    },
  };
}
