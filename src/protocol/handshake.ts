/**
 * The three handshake messages over a transport, for both sides, resulting in a channel. Nothing can be encrypted before
 * the handshake is complete, so every failure closes silently; every wait has a limit, because a silent stranger must not
 * hold a socket. The initiator checks the receiver's key before it names itself, so a false receiver learns nothing.
 */
import { onAbort } from '../async/calls.js';
import { ReceiverError } from '../errors.js';
import {
  createChannel,
  type OffloaderChannel,
  type ReceiverChannel,
  openInbox,
  type Inbox,
} from './channel.js';
import type { Intent } from './constants.js';
import { pinOf } from './fingerprint.js';
import { parseToOffloader, parseToReceiver } from './frames.js';
import {
  decodeAnswer,
  decodeIntentMessage,
  decodeIntent,
  encodeIntentMessage,
  encodeIntent,
  type IntentMessage,
} from './intent.js';
import {
  createInitiator,
  createResponder,
  maxMessageBytes,
  type KeyPair,
  type NoiseSession,
} from './noise.js';
import type { Transport } from './transport.js';

const handshakeTimeoutMs = 10_000;
const empty = Buffer.alloc(0);

export interface RespondOptions {
  /** The limit for each of the two waits. Default: 10,000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** An offloader that has proved its key and waits for the answer. */
export type Responded = Awaited<ReturnType<typeof respond>>;

/**
 * The receiver's side. Starts the transport. Throws NOISE, PROTOCOL (wrong kind of message, early close, timeout) or
 * CANCELLED, after closing the transport without an answer.
 */
export async function respond(transport: Transport, identity: KeyPair, options: RespondOptions = {}) {
  const { timeoutMs = handshakeTimeoutMs } = options;
  return closingOnFailure(transport, options.signal, async (inbox) => {
    const noise = createResponder({ staticKey: identity });
    const intent = decodeIntent(noise.read(await inbox.next(timeoutMs)));
    transport.send(noise.write(empty));
    const hello = decodeIntentMessage(noise.read(await inbox.next(timeoutMs)));
    const session = noise.split();
    inbox.forbid();
    const channel: ReceiverChannel = createChannel(transport, inbox, session, parseToReceiver);
    /** The intent is undefined if missing or unknown: answer `rejected`, `bad_intent`. */
    return { intent, hello, ...peerOf(session), channel };
  });
}

export interface InitiateOptions {
  readonly intent: Intent;
  /** Not needed for `preview`. */
  readonly hello?: Partial<IntentMessage>;
  /** The receiver's pin from a person or an earlier pairing. Default: any receiver is accepted. */
  readonly expectedPin?: string;
  /** The limit for the second message. Default: 10,000. */
  readonly timeoutMs?: number;
  /** The limit for the answer, which must be long for `pair_status`. Default: `timeoutMs`. */
  readonly answerTimeoutMs?: number;
  readonly signal?: AbortSignal;
}

export type Initiated = Awaited<ReturnType<typeof initiate>>;

/**
 * The offloader's side, including the wait for the answer. Starts the transport. Throws NOISE, PROTOCOL, CANCELLED, or
 * PAIRING for an unexpected key of the receiver, after closing the transport.
 */
export async function initiate(transport: Transport, identity: KeyPair, options: InitiateOptions) {
  const { timeoutMs = handshakeTimeoutMs, answerTimeoutMs = timeoutMs } = options;
  return closingOnFailure(transport, options.signal, async (inbox) => {
    const noise = createInitiator({ staticKey: identity });
    transport.send(noise.write(encodeIntent(options.intent)));
    noise.read(await inbox.next(timeoutMs));
    checkPin(pinOf(noise.remoteStatic()), options.expectedPin);
    transport.send(noise.write(options.hello === undefined ? empty : encodeIntentMessage(options.hello)));
    const session = noise.split();
    const sealed = await inbox.next(answerTimeoutMs);
    const answer =
      sealed.length > maxMessageBytes ? undefined : decodeAnswer(session.incoming.decrypt(sealed));
    if (answer === undefined) throw new ReceiverError('PROTOCOL', 'the answer to the intent is malformed');
    const channel: OffloaderChannel = createChannel(transport, inbox, session, parseToOffloader);
    return { answer, ...peerOf(session), channel };
  });
}

function peerOf({ remoteStatic }: NoiseSession): { peerStaticKey: Buffer; peerPin: string } {
  return { peerStaticKey: remoteStatic, peerPin: pinOf(remoteStatic) };
}

function checkPin(seen: string, expected: string | undefined): void {
  if (expected === undefined || expected === seen) return;
  throw new ReceiverError('PAIRING', "the receiver's key does not match the paired pin", { expected, seen });
}

async function closingOnFailure<T>(
  transport: Transport,
  signal: AbortSignal | undefined,
  shakeHands: (inbox: Inbox) => Promise<T>,
): Promise<T> {
  const inbox = openInbox(transport);
  const stopListening = onAbort(signal, () =>
    inbox.fail(new ReceiverError('CANCELLED', 'the handshake was cancelled')),
  );
  try {
    return await shakeHands(inbox);
  } catch (error) {
    inbox.stop();
    transport.close();
    throw error;
  } finally {
    stopListening();
  }
}
