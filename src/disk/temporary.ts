/**
 * Names for what exists only while a process works on it. Each says which process that is, so that what a crash has
 * left can be told from what another receiver on the same disk is using at this moment. An age could not tell: an
 * upload that waits for its turn may be hours old.
 */
import { createHash, randomUUID } from 'node:crypto';

import { identify, isAlive, type ProcessIdentity } from '../process/identity.js';

/** `unknown`: of another boot, container or machine, whose processes cannot be seen from here. */
export type Standing = 'alive' | 'gone' | 'unknown';

const shape = /(?:^|\.)(\d{1,10}-\d{1,20}-[0-9a-f]{12})\.[0-9a-f-]{36}\.tmp$/;

/** A fresh name that ends in `.tmp`, made by this process unless another is named. */
export function temporaryName(maker = ownMaker()): string {
  return `${maker}.${randomUUID()}.tmp`;
}

/** Who made a name that ends in a {@link temporaryName}; null for any other name. */
export function makerOf(name: string): string | null {
  return shape.exec(name)?.[1] ?? null;
}

/** A process as it stands in names. */
export function makerName({ pid, startTime, bootId }: ProcessIdentity): string {
  return `${pid}-${startTime}-${createHash('sha256').update(bootId).digest('hex').slice(0, 12)}`;
}

/** This process as it stands in names. */
export function ownMaker(): string {
  return makerName(ownIdentity());
}

/** Whether the process that a name tells of still runs. Throws system errors when that cannot be read now. */
export function standingOf(maker: string): Standing {
  if (maker === ownMaker()) return 'alive';
  const [pid, startTime] = maker.split('-').map(Number);
  const { bootId } = ownIdentity();
  const identity = { pid: pid ?? 0, startTime: startTime ?? 0, bootId };
  if (bootId === '' || maker !== makerName(identity)) return 'unknown';
  return isAlive(identity) ? 'alive' : 'gone';
}

/** Looked up once: it never changes, and names are made by the thousand. */
let own: ProcessIdentity | null = null;

function ownIdentity(): ProcessIdentity {
  own ??= identify(process.pid);
  return own ?? { pid: process.pid, startTime: 0, bootId: '' };
}
