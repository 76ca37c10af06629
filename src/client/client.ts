/**
 * The client of the peer link: shows a receiver's pin, pairs with it, and opens sessions for builds (Device Builder 1.26).
 * It works with any receiver of that protocol. The caller provides the pin, which a person has compared or an earlier
 * pairing has stored; a receiver with another key learns nothing about this client.
 */
import { mkdir } from 'node:fs/promises';

import { raceAbort } from '../async/calls.js';
import { systemClock, type Clock } from '../async/clock.js';
import { isReceiverError, quote, ReceiverError } from '../errors.js';
import { silentLog, type Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import { loadDashboardId, loadIdentity } from '../peers/identity.js';
import { type Intent, intentResponses } from '../protocol/constants.js';
import { initiate, type Initiated, type InitiateOptions } from '../protocol/handshake.js';
import { waitForClose } from '../protocol/heartbeat.js';
import type { IntentAnswer } from '../protocol/intent.js';
import type { Transport } from '../protocol/transport.js';
import { infoOf, type ReceiverInfo, startSession, type OffloaderSession } from './session.js';

const retryMs = 2_000;
const approvalPollMs = 3_600_000;

export interface OffloaderOptions {
  readonly identity: OffloaderIdentity;
  /** Opens a connection to the receiver. Its errors are passed on. */
  readonly connect: () => Promise<Transport>;
  /** The label of the pairing request, as the receiver's operator sees it. Default: empty. */
  readonly label?: string;
  /** The name of this dashboard. Default: empty. */
  readonly friendlyName?: string;
  /** Default: silent. */
  readonly log?: Log;
  /** Default: the machine's clock. */
  readonly clock?: Clock;
}

/**
 * Every call throws PAIRING when the receiver's key does not match `pin`, NOISE or PROTOCOL when the receiver breaks the
 * protocol, REJECTED with the `reason` in its facts when the receiver refuses, CANCELLED on abort.
 */
export interface Offloader {
  /** Works without pairing. Compare the pin with the one that the receiver shows before you continue. */
  preview(): Promise<ReceiverInfo>;
  /** Requests to pair. `pending`: an operator of the receiver must decide. */
  requestPairing(request: {
    readonly pin: string;
    readonly pairingKey?: string;
  }): Promise<'approved' | 'pending'>;
  /** Waits for the approval, and reconnects when a connection is lost. Throws REJECTED when the request is refused. */
  waitForApproval(request: { readonly pin: string; readonly signal?: AbortSignal }): Promise<void>;
  /** Aborting `signal` cancels the opening, and later closes the session. */
  openSession(request: { readonly pin: string; readonly signal?: AbortSignal }): Promise<OffloaderSession>;
}

/** Creates a client for one receiver, without connecting yet. */
export function createOffloader(options: OffloaderOptions): Offloader {
  const { identity, label = '', friendlyName = '', log = silentLog, clock = systemClock } = options;
  const { dashboardId } = identity;

  async function ask(intent: Intent, more: Omit<InitiateOptions, 'intent'>): Promise<Initiated> {
    if (more.signal?.aborted === true) throw cancelled();
    return initiate(await options.connect(), identity, { intent, ...more });
  }

  /** Sends the intent, reads the answer and closes the connection. */
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
      return startSession({ channel: initiated.channel, clock, log }, infoOf(initiated), signal);
    },
  };
}

/** Closes in good order, or by force if the receiver does not answer. */
function hangUp({ channel }: Initiated, clock: Clock): void {
  channel.close();
  void waitForClose(channel, clock);
}

function rejected({ intent_response: answer, reason }: IntentAnswer): ReceiverError {
  const known = answer === 'no_pairing_window' ? `: ${intentResponses[answer]}` : '';
  const why = reason === undefined ? known : `: ${quote(reason)}`;
  const facts = { answer, reason: reason ?? answer };
  return new ReceiverError('REJECTED', `the receiver answered ${quote(answer)}${why}`, facts);
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
 * The client's key, which receivers pin, and its id, under which they store its data. Both are created once and kept: if
 * they change, every receiver must be paired again.
 */
export interface OffloaderIdentity {
  /** Raw X25519 keys, 32 bytes each. */
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly dashboardId: DashboardId;
}

/** Loads the identity from a directory, or creates it. Throws `STATE` for a damaged key, and system errors. */
export async function loadOffloaderIdentity(
  directory: string,
  log: Log = silentLog,
): Promise<OffloaderIdentity> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const { privateKey, publicKey } = await loadIdentity(directory, log);
  return { privateKey, publicKey, dashboardId: await loadDashboardId(directory, log) };
}
