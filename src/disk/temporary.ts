/**
 * Names for temporary files. Each contains its process, so that leftovers of a crash can be distinguished from files in
 * use by another receiver on the same disk. Their age would not show it: a queued upload can be hours old.
 */
import { createHash, randomUUID } from 'node:crypto';

import { identify, isAlive, type ProcessIdentity } from '../process/identity.js';

/** `unknown`: of another boot, container or machine, whose processes are not visible. */
export type Standing = 'alive' | 'gone' | 'unknown';

const shape = /(?:^|\.)(\d{1,10}-\d{1,20}-[0-9a-f]{12})\.[0-9a-f-]{36}\.tmp$/;

/** A unique name that ends in `.tmp`. */
export function temporaryName(maker = ownMaker()): string {
  return `${maker}.${randomUUID()}.tmp`;
}

/** The maker of a name that ends in a {@link temporaryName}; null for any other name. */
export function makerOf(name: string): string | null {
  return shape.exec(name)?.[1] ?? null;
}

/** A process as written in names. */
export function makerName({ pid, startTime, bootId }: ProcessIdentity): string {
  return `${pid}-${startTime}-${createHash('sha256').update(bootId).digest('hex').slice(0, 12)}`;
}

/** This process as written in names. */
export function ownMaker(): string {
  return makerName(ownIdentity());
}

/** Whether the process in a name still runs. Throws system errors when that cannot be read. */
export function standingOf(maker: string): Standing {
  if (maker === ownMaker()) return 'alive';
  const [pid, startTime] = maker.split('-').map(Number);
  const { bootId } = ownIdentity();
  const identity = { pid: pid ?? 0, startTime: startTime ?? 0, bootId };
  if (bootId === '' || maker !== makerName(identity)) return 'unknown';
  return isAlive(identity) ? 'alive' : 'gone';
}

/** Cached: it never changes, and thousands of names are created. */
let own: ProcessIdentity | null = null;

function ownIdentity(): ProcessIdentity {
  own ??= identify(process.pid);
  return own ?? { pid: process.pid, startTime: 0, bootId: '' };
}
