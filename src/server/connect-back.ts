/**
 * One call back: a receiver that has moved tells an approved dashboard where it is now (Device Builder 1.26).
 *
 * The roles of the handshake are swapped, we begin it. The key that answers is compared with the paired one before our
 * third message, so that whoever has got the dashboard's old address by now is told nothing but that a receiver calls.
 * No trust hangs on the call: the dashboard looks for our key at the address that it sees before it believes us.
 */
import { isReceiverError } from '../errors.js';
import { onAbort } from '../async/abort.js';
import type { Clock } from '../async/clock.js';
import { waitForClose } from '../protocol/heartbeat.js';
import { initiate } from '../protocol/handshake.js';
import type { IntentAnswer } from '../protocol/intent.js';
import type { KeyPair } from '../protocol/noise.js';
import type { Transport } from '../protocol/transport.js';

/** Of the connection, the second message and the answer each: the dashboard looks for us before it answers. */
export const callStepMs = 30_000;

export interface CallOptions {
  readonly identity: KeyPair;
  /** Of the dashboard, as it was paired. */
  readonly expectedPin: string;
  /** The port of ours that the dashboard is told. */
  readonly port: number;
  readonly clock: Clock;
  /** Ends the call and its connection. */
  readonly signal: AbortSignal;
  /** Default: {@link callStepMs}. */
  readonly stepTimeoutMs?: number;
}

export type CallOutcome =
  /** It has found us there, and will reconnect. */
  | { readonly kind: 'accepted' }
  /** A word of the peer's; '' when it gave none. Anything may stand in it. */
  | { readonly kind: 'refused'; readonly reason: string }
  /** Somebody else answers at its address, or it has a new key. */
  | { readonly kind: 'wrong_key' }
  | { readonly kind: 'failed'; readonly cause: unknown }
  | { readonly kind: 'cancelled' };

/** Makes the call over a connection of its own. Resolves when that has ended; never rejects. */
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
