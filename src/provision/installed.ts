/**
 * The host's own ESPHome, as jobs ask for it. Every job asks anew, because an upgrade while the server runs is
 * ordinary, and a job that believed an old answer would build by another version than it says.
 *
 * Python needs 0.1 s and more to say its version, so the question is put when a bundle begins to arrive, and not when
 * its last byte has.
 */
import { raceAbort } from '../async/abort.js';
import type { Clock } from '../async/clock.js';
import { shareInFlight } from '../async/single-flight.js';
import { ReceiverError } from '../errors.js';
import { findEsphome, type EsphomeCommand, type FindOptions } from '../esphome/command.js';
import { probeVersion } from '../esphome/version.js';

export interface Installed {
  readonly command: EsphomeCommand;
  readonly version: string;
  /** When it was asked, by the steady clock. */
  readonly askedAt: number;
}

export interface InstalledOptions extends FindOptions {
  /** The environment in which the command is asked for its version. */
  readonly probeEnv: Readonly<Record<string, string>>;
  readonly clock: Pick<Clock, 'steady'>;
}

export interface InstalledEsphome {
  /** Puts the question, for whoever asks soon. Any number of calls within a second cost one process. */
  prepare(): void;
  /** Throws `PROVISION` when there is none or it does not answer; `CANCELLED`. */
  ask(signal: AbortSignal): Promise<Installed>;
  /** Whether that answer is too old to be believed. */
  isStale(installed: Installed): boolean;
  /** The version of a command that has answered before. Throws as `ask` does. */
  askAgain(installed: Installed, signal: AbortSignal): Promise<string>;
  /** Ends the questions that are put; who asks from now on gets `PROVISION` or `CANCELLED`. */
  close(): void;
}

/** So long an answer is believed. */
const freshMs = 10_000;
/** So long after a question the next one need not be put in advance. */
const preparedMs = 1_000;

export function createInstalled(options: InstalledOptions): InstalledEsphome {
  const { esphome, environment, probeEnv, clock } = options;
  let prepared: { readonly since: number; readonly answer: Promise<Installed | null> } | null = null;
  // Those who ask at the same time also get their answers in the order in which they came.
  const askTogether = shareInFlight(askNow, { freshMs: 0, clock });
  const closing = new AbortController();

  async function askNow(): Promise<Installed> {
    const askedAt = clock.steady();
    const command = await findEsphome({ esphome, environment });
    if (command === null) {
      throw new ReceiverError('PROVISION', 'this build server has no ESPHome installed', { esphome });
    }
    return {
      command,
      version: await probeVersion(command, { env: probeEnv, signal: closing.signal }),
      askedAt,
    };
  }

  const isOld = (since: number): boolean => clock.steady() - since >= freshMs;

  return {
    prepare() {
      if (prepared !== null && clock.steady() - prepared.since < preparedMs) return;
      // A failure is nobody's answer: who asks then may find it mended.
      prepared = { since: clock.steady(), answer: askNow().catch(() => null) };
    },
    async ask(signal) {
      const isUseful = prepared !== null && !isOld(prepared.since);
      const known = isUseful ? await unlessAborted(prepared?.answer, signal) : null;
      if (known) return known;
      return unlessAborted(askTogether(), signal);
    },
    isStale: ({ askedAt }) => isOld(askedAt),
    askAgain: ({ command }, signal) => probeVersion(command, { env: probeEnv, signal }),
    close: () => closing.abort(),
  };
}

/** As `answer`, which goes on without this caller when it leaves. Throws `CANCELLED`. */
function unlessAborted<T>(answer: T | Promise<T>, signal: AbortSignal): Promise<T> {
  const cancelled = (): ReceiverError =>
    new ReceiverError('CANCELLED', 'asking for the version was cancelled');
  return raceAbort(answer, signal, cancelled);
}

/**
 * The installed version as the link tells it, asked at most once in a while: every stranger's connection is answered
 * with it, and a Python process for each of them would let anybody on the network keep the machine busy.
 */
const answerFreshMs = 30_000;

/** Calls within 30 s of the last answer share it, calls at the same time share one question. A failure is an answer too. */
export function createKnownVersion(
  { ask }: Pick<InstalledEsphome, 'ask'>,
  clock: Pick<Clock, 'steady'>,
): () => Promise<string> {
  const never = new AbortController().signal;
  return shareInFlight(async () => (await ask(never)).version, { freshMs: answerFreshMs, clock });
}
