/**
 * The client of the peer link: shows a receiver's pin, pairs with it, and opens the session in which builds travel
 * (Device Builder 1.26). It speaks to any receiver of that protocol.
 *
 * Whoever calls brings the pin that a person has compared or that an earlier pairing has kept; nothing about this
 * side is said to a receiver that shows another key.
 */
import { mkdir } from 'node:fs/promises';

import { raceAbort } from '../async/abort.js';
import { systemClock, type Clock } from '../async/clock.js';
import { isReceiverError, quote, ReceiverError } from '../errors.js';
import { silentLog, type Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import { loadDashboardId, loadIdentity } from '../peers/identity.js';
import type { Intent } from '../protocol/constants.js';
import { initiate, type Initiated, type InitiateOptions } from '../protocol/handshake.js';
import { waitForClose } from '../protocol/heartbeat.js';
import type { IntentAnswer } from '../protocol/intent.js';
import type { Transport } from '../protocol/transport.js';
import { infoOf, type ReceiverInfo, startSession, type OffloaderSession } from './session.js';

const retryMs = 2_000;
const approvalPollMs = 3_600_000;

export interface OffloaderOptions {
  readonly identity: OffloaderIdentity;
  /** Opens a connection to the receiver. What it throws is passed on. */
  readonly connect: () => Promise<Transport>;
  /** The name under which the receiver's owner sees the pairing request. Default ''. */
  readonly label?: string;
  /** The name of this dashboard. Default ''. */
  readonly friendlyName?: string;
  /** Default: says nothing. */
  readonly log?: Log;
  /** Default: the machine's. */
  readonly clock?: Clock;
}

/**
 * Every call throws PAIRING when the receiver's key is not the one of `pin`, NOISE or PROTOCOL when it does not
 * speak as it must, REJECTED with its `reason` in the facts when it refuses, CANCELLED on abort.
 */
export interface Offloader {
  /** Works at any time, paired or not. Compare the pin with what the receiver shows before going on. */
  preview(): Promise<ReceiverInfo>;
  /** Asks to be paired. `pending` waits for a person at the receiver. */
  requestPairing(request: {
    readonly pin: string;
    readonly pairingKey?: string;
  }): Promise<'approved' | 'pending'>;
  /** Waits for that person, over lost connections too, until approval or abort. REJECTED when it was refused. */
  waitForApproval(request: { readonly pin: string; readonly signal?: AbortSignal }): Promise<void>;
  /** Opens the session. Aborting `signal` ends the opening, and later the session. */
  openSession(request: { readonly pin: string; readonly signal?: AbortSignal }): Promise<OffloaderSession>;
}

/** Makes a client for one receiver. Nothing is connected yet. */
export function createOffloader(options: OffloaderOptions): Offloader {
  const { identity, label = '', friendlyName = '', log = silentLog, clock = systemClock } = options;
  const { dashboardId } = identity;

  async function ask(intent: Intent, more: Omit<InitiateOptions, 'intent'>): Promise<Initiated> {
    if (more.signal?.aborted === true) throw cancelled();
    return initiate(await options.connect(), identity, { intent, ...more });
  }

  /** Asks, takes the answer and hangs up. */
  async function askOnce(intent: Intent, more: Omit<InitiateOptions, 'intent'>): Promise<Initiated> {
    const initiated = await ask(intent, more);
    hangUp(initiated, clock);
    return initiated;
  }

  return {
    async preview() {
      return infoOf(await askOnce('preview', {}));
    },
    async requestPairing({ pin, pairingKey }) {
      const hello = {
        ...{ dashboardId, label, friendlyName, haAddon: false, labelAuto: false },
        ...(pairingKey !== undefined && { pairingKey }),
      };
      const { answer } = await askOnce('pair_request', { expectedPin: pin, hello });
      const word = answer.intent_response;
      if (word === 'approved' || word === 'pending') return word;
      throw rejected(answer);
    },
    async waitForApproval({ pin, signal }) {
      for (;;) {
        try {
          const { answer } = await askOnce('pair_status', {
            expectedPin: pin,
            hello: { dashboardId },
            answerTimeoutMs: approvalPollMs,
            ...(signal && { signal }),
          });
          if (answer.intent_response === 'approved') return;
          if (answer.intent_response === 'rejected') throw rejected(answer);
        } catch (error) {
          if (!isReceiverError(error, 'PROTOCOL')) throw error;
          log.info({ err: error }, 'waiting for approval again');
        }
        await pause(clock, retryMs, signal);
      }
    },
    async openSession({ pin, signal }) {
      const initiated = await ask('peer_link', {
        expectedPin: pin,
        hello: { dashboardId, friendlyName, haAddon: false },
        ...(signal && { signal }),
      });
      if (initiated.answer.intent_response !== 'ok') {
        hangUp(initiated, clock);
        throw rejected(initiated.answer);
      }
      const { channel } = initiated;
      return startSession({ channel, receiver: infoOf(initiated), clock, log, ...(signal && { signal }) });
    },
  };
}

/** Closes in good order, and without the other side when it does not answer. */
function hangUp({ channel }: Initiated, clock: Clock): void {
  channel.close();
  void waitForClose(channel, clock);
}

function rejected({ intent_response: answer, reason }: IntentAnswer): ReceiverError {
  const why = reason === undefined ? '' : `: ${quote(reason)}`;
  return new ReceiverError('REJECTED', `the receiver answered ${quote(answer)}${why}`, {
    ...{ answer, reason: reason ?? answer },
  });
}

function cancelled(): ReceiverError {
  return new ReceiverError('CANCELLED', 'the request was cancelled');
}

async function pause(clock: Clock, delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  let cancel = (): void => {};
  const elapsed = new Promise<void>((resolve) => (cancel = clock.after(delayMs, resolve, true)));
  await raceAbort(elapsed, signal, cancelled).finally(cancel);
}

/**
 * Who this side is: a key that receivers pin, and the id under which they keep what belongs to us. Both are made
 * once and kept, because every receiver must be paired again when they change.
 */
export interface OffloaderIdentity {
  /** Raw X25519 keys, 32 bytes each. */
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly dashboardId: DashboardId;
}

/** Loads the identity from a directory, or makes both. Throws system errors. */
export async function loadOffloaderIdentity(
  directory: string,
  log: Log = silentLog,
): Promise<OffloaderIdentity> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const { privateKey, publicKey } = await loadIdentity(directory, log);
  return { privateKey, publicKey, dashboardId: await loadDashboardId(directory, log) };
}
