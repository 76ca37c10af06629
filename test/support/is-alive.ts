/**
 * Whether a process still runs. A zombie does not, though signal 0 reaches it: whoever adopted it has not looked yet,
 * and in a container that may never happen.
 */
import { spawnSync } from 'node:child_process';

export function isAlive(pid: number): boolean {
  const { stdout } = spawnSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' });
  return stdout.trim() !== '' && !stdout.startsWith('Z');
}
