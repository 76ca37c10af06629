/**
 * Two small shell programs that stop a build when its receiver dies. Otherwise a build could outlive a killed receiver
 * until its lock is stale, and a second receiver would start a compiler in the same directory.
 *
 * The first holds the command back until the receiver has recorded its identity. The second waits on a pipe for the
 * receiver's end, in its own session so that it is not part of the build. Both are texts for `sh -c`, because the
 * package's build contains no other files. They use only what every sh has built in, and `grep` and `sleep` where present.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { ReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import { markerVariable, type SessionIdentity } from './stop.js';

export const shell = '/bin/sh';

/** The line on stdin that starts the held command. */
export const goLine = 'go\n';

/**
 * Waits for the line, then becomes the command, with the same pid, so its exit code and signals are the command's. One
 * stream for both outputs keeps their order. If stdin ends instead, the receiver is gone and nothing starts.
 */
export const holdScript = 'IFS= read -r go || exit 125; exec </dev/null 2>&1; exec "$@"';

/** The watchdog exits without killing anything when it reads this line. */
const doneLine = 'done\n';

/**
 * Arguments: leader's pid, its start time, the marker. When stdin ends it kills the leader's group, then the rest of
 * the session and what carries the marker, in rounds until one finds nothing. It touches nothing when the pid was
 * reused. Without /proc it can only kill the group.
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

/** Time for a watchdog to exit before it is killed. */
const doneMs = 1_000;

/** Starts to watch a session. Throws SPAWN when that fails, because a build must not run unwatched. */
export async function watch(session: SessionIdentity, log: Log) {
  const { pid, startTime, marker } = session;
  const name = 'koa-esphome-receiver-watchdog';
  const child = spawn(shell, ['-c', watchScript, name, String(pid), String(startTime), marker], {
    detached: true,
    cwd: '/',
    env: { PATH: '/usr/bin:/bin' },
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  try {
    // Must come first: with no descriptor free, stdin is missing and the spawn's error arrives later.
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
    /** Stops watching: afterwards the receiver's death kills nothing. */
    async done(): Promise<void> {
      child.off('exit', onEarlyExit);
      child.stdin.end(doneLine);
      const timer = setTimeout(() => child.kill('SIGKILL'), doneMs);
      await exit;
      clearTimeout(timer);
    },
  };
}
