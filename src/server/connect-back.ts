/**
 * One connect-back: a receiver that has moved tells an approved dashboard its new address (Device Builder 1.26). The
 * receiver initiates the handshake and compares the dashboard's key with the paired one before its third message, so
 * whoever has the dashboard's old address now learns only that a receiver calls. The call needs no trust in return: the
 * dashboard checks for our key at the caller's address before it accepts that address.
 */
import { isReceiverError } from '../errors.js';
import { onAbort } from '../async/calls.js';
import type { Clock } from '../async/clock.js';
import { waitForClose } from '../protocol/heartbeat.js';
import { initiate } from '../protocol/handshake.js';
import type { IntentAnswer } from '../protocol/intent.js';
import type { KeyPair } from '../protocol/noise.js';
import type { Transport } from '../protocol/transport.js';

/** The limit for the connection, the second message and the answer each: the dashboard probes us before it answers. */
export const callStepMs = 30_000;

export interface CallOptions {
  readonly identity: KeyPair;
  /** The dashboard's pin from its pairing. */
  readonly expectedPin: string;
  /** Our port, which the dashboard is told. */
  readonly port: number;
  readonly clock: Clock;
  /** Ends the call and its connection. */
  readonly signal: AbortSignal;
  /** Default: {@link callStepMs}. */
  readonly stepTimeoutMs?: number;
}

export type CallOutcome =
  /** The dashboard reached this receiver and will reconnect. */
  | { readonly kind: 'accepted' }
  /** `reason` is untrusted text from the peer, empty if it sent none. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** Another machine answered at the address, or the dashboard has a new key. */
  | { readonly kind: 'wrong_key' }
  | { readonly kind: 'failed'; readonly cause: unknown }
  | { readonly kind: 'cancelled' };

/** Makes the call over a new connection. Resolves when the connection has ended; never rejects. */
export async function connectBack(
  connect: () => Promise<Transport>,
  options: CallOptions,
): Promise<CallOutcome> {
  let transport: Transport | undefined;
  try {
    transport = await connect();
    return await call(transport, options);
  } catch (cause) {
    transport?.destroy();
    if (options.signal.aborted) return { kind: 'cancelled' };
    return isReceiverError(cause, 'PAIRING') ? { kind: 'wrong_key' } : { kind: 'failed', cause };
  }
}

async function call(transport: Transport, options: CallOptions): Promise<CallOutcome> {
  const { identity, expectedPin, port, clock, signal, stepTimeoutMs = callStepMs } = options;
  const stopListening = onAbort(signal, () => transport.destroy());
  try {
    const { answer, channel } = await initiate(transport, identity, {
      intent: 'connect_back',
      hello: { peerLinkPort: port },
      expectedPin,
      timeoutMs: stepTimeoutMs,
      signal,
    });
    channel.close();
    await waitForClose(channel, clock);
    return outcomeOf(answer);
  } finally {
    stopListening();
  }
}

function outcomeOf({ intent_response: word, reason = '' }: IntentAnswer): CallOutcome {
  return word === 'ok' ? { kind: 'accepted' } : { kind: 'refused', reason };
}
