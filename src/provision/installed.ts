/**
 * Finds the host's own ESPHome and its version. Every job queries it again, because an upgrade while the server runs is
 * ordinary, and a job with an old answer would build with another version than it reports.
 *
 * A query takes 0.1 s or more, so it starts when a bundle begins to arrive, and not after its last byte.
 */
import { raceAbort } from '../async/calls.js';
import type { Clock } from '../async/clock.js';
import { shareInFlight } from '../async/calls.js';
import { ReceiverError } from '../errors.js';
import { findEsphome, type EsphomeCommand, type FindOptions } from '../esphome/command.js';
import { probeVersion } from '../esphome/version.js';

export interface Installed {
  readonly command: EsphomeCommand;
  readonly version: string;
  /** Time of the query on the steady clock. */
  readonly askedAt: number;
}

export interface InstalledOptions extends FindOptions {
  /** The environment of the version query. */
  readonly probeEnv: Readonly<Record<string, string>>;
  readonly clock: Pick<Clock, 'steady'>;
}

export type InstalledEsphome = ReturnType<typeof createInstalled>;

/** How long an answer is valid. */
const freshMs = 10_000;
/** Minimum time between two calls of `prepare` that start a query. */
const preparedMs = 1_000;

export function createInstalled(options: InstalledOptions) {
  const { esphome, environment, probeEnv, clock } = options;
  let prepared: { readonly since: number; readonly answer: Promise<Installed | null> } | null = null;
  // Concurrent callers share one query, and get their answers in the order of their calls.
  const askTogether = shareInFlight(askNow, { freshMs: 0, clock });
  const closing = new AbortController();

  async function askNow(): Promise<Installed> {
    const askedAt = clock.steady();
    const command = await findEsphome({ esphome, environment });
    if (command === null) {
      throw new ReceiverError('PROVISION', 'this build server has no ESPHome installed', { esphome });
    }
    const version = await probeVersion(command, { env: probeEnv, signal: closing.signal });
    return { command, version, askedAt };
  }

  const isOld = (since: number): boolean => clock.steady() - since >= freshMs;

  return {
    /** Starts a query for the next `ask`. Any number of calls within a second cost one process. */
    prepare(): void {
      if (prepared !== null && clock.steady() - prepared.since < preparedMs) return;
      // A failure is not shared: by the time of `ask` it may be repaired.
      prepared = { since: clock.steady(), answer: askNow().catch(() => null) };
    },
    /** Throws `PROVISION` when ESPHome is missing or does not run; `CANCELLED`. */
    async ask(signal: AbortSignal): Promise<Installed> {
      const isUseful = prepared !== null && !isOld(prepared.since);
      const known = isUseful ? await unlessAborted(prepared?.answer, signal) : null;
      if (known) return known;
      return unlessAborted(askTogether(), signal);
    },
    /** Whether the answer is too old to rely on. */
    isStale: ({ askedAt }: Installed): boolean => isOld(askedAt),
    /** Queries the version of a known command again. Throws as `ask`. */
    askAgain: ({ command }: Installed, signal: AbortSignal): Promise<string> =>
      probeVersion(command, { env: probeEnv, signal }),
    /** Cancels running queries; later calls of `ask` get `PROVISION` or `CANCELLED`. */
    close: (): void => closing.abort(),
  };
}

/** Waits for `answer`, which continues if this caller aborts. Throws `CANCELLED`. */
function unlessAborted<T>(answer: T | Promise<T>, signal: AbortSignal): Promise<T> {
  const cancelled = (): ReceiverError => new ReceiverError('CANCELLED', 'the version query was cancelled');
  return raceAbort(answer, signal, cancelled);
}

const answerFreshMs = 30_000;

/**
 * Wraps `ask` so that concurrent calls, and calls within 30 s of the last answer or failure, share one query. The peer
 * link tells every unknown client the version, and a Python process for each connection would let anyone on the network
 * keep the machine busy.
 */
export function createKnownVersion(
  { ask }: Pick<InstalledEsphome, 'ask'>,
  clock: Pick<Clock, 'steady'>,
): () => Promise<string> {
  const never = new AbortController().signal;
  return shareInFlight(async () => (await ask(never)).version, { freshMs: answerFreshMs, clock });
}
