/**
 * Whether a process is running. A zombie is not, although signal 0 reaches it: its new parent has not reaped it yet,
 * and in a container that might never happen.
 */
import { spawnSync } from 'node:child_process';

export function isAlive(pid: number): boolean {
  const { stdout } = spawnSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' });
  return stdout.trim() !== '' && !stdout.startsWith('Z');
}
