/**
 * Why a job waits, as plain data and as text for an operator. A job that is only "queued" leaves people guessing, and
 * they cancel what would have started a minute later. The data names other peers, so it is never sent to a peer.
 */
import { quote } from '../errors.js';
import type { ToolWait } from '../toolchains/access.js';
import type { DashboardId } from '../paths/index.js';

/** The machine has too little of a resource for a further build. */
export interface Shortage {
  readonly for: 'memory' | 'disk';
  readonly freeBytes: number;
  /** How much must be free before the build starts. */
  readonly neededBytes: number;
}

export type WaitReason =
  | QueueTurn
  | Shortage
  /** Another build, a removal or another receiver holds the device's directory. */
  | { readonly for: 'device' }
  | ToolWait
  /** The requested release of ESPHome is being installed. */
  | { readonly for: 'esphome'; readonly version: string };

/** All slots are taken. */
export interface QueueTurn {
  readonly for: 'turn';
  /** At most three owners whose jobs run or come first, in the order of service. */
  readonly behind: readonly Behind[];
  /** The number of jobs of further owners. */
  readonly more: number;
}

export interface Owner {
  /** Null: the host itself. */
  readonly dashboardId: DashboardId | null;
  readonly label: string;
}

export interface Behind extends Owner {
  readonly jobs: number;
}

const shownPeers = 3;
const giga = 1_000_000_000;

/** In one line, without a full stop: `behind 2 jobs of "Home"`. */
export function waitingText(waiting: WaitReason): string {
  if (waiting.for === 'turn') return turnText(waiting);
  if (waiting.for === 'device') return 'device busy';
  if (waiting.for === 'toolchain') return 'toolchain being installed';
  if (waiting.for === 'esphome') return `ESPHome ${waiting.version} being installed`;
  const { freeBytes, neededBytes } = waiting;
  return `${waiting.for} ${gigabytes(freeBytes, Math.floor)} of ${gigabytes(neededBytes, Math.ceil)} GB needed`;
}

/** With one decimal. The caller chooses the rounding, so that too little never looks like enough. */
export function gigabytes(bytes: number, round: (value: number) => number): string {
  return String(round((bytes / giga) * 10) / 10);
}

function turnText({ behind, more }: QueueTurn): string {
  const parts = behind.map(({ dashboardId, label, jobs }, place) => {
    const count = place === 0 ? `${jobs} ${jobs === 1 ? 'job' : 'jobs'}` : String(jobs);
    return `${count} of ${dashboardId === null ? label : quote(label)}`;
  });
  if (more > 0) parts.push(`${more} more`);
  const last = parts.pop() ?? 'nobody';
  return `behind ${parts.length > 0 ? `${parts.join(', ')} and ${last}` : last}`;
}

/** The host itself as an owner. */
export const thisHost: Owner = { dashboardId: null, label: 'this host' };

/** For each id that waits for a slot, who comes before it. Owners are compared by their dashboard. */
export function turnsOf(
  { running, waiting }: { readonly running: readonly string[]; readonly waiting: readonly string[] },
  ownerOf: (id: string) => Owner,
): ReadonlyMap<string, QueueTurn> {
  const turns = new Map<string, QueueTurn>();
  const counts = new Map<DashboardId | null, Behind>();
  let before = 0;
  const isWaiting = new Set(waiting);
  for (const id of [...running, ...waiting]) {
    if (isWaiting.has(id)) {
      const behind = [...counts.values()].slice(0, shownPeers);
      const shown = behind.reduce((sum, { jobs }) => sum + jobs, 0);
      turns.set(id, { for: 'turn', behind, more: before - shown });
    }
    const owner = ownerOf(id);
    counts.set(owner.dashboardId, { ...owner, jobs: (counts.get(owner.dashboardId)?.jobs ?? 0) + 1 });
    before += 1;
  }
  return turns;
}
