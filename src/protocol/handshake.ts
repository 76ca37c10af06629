/**
 * The three handshake messages over a transport, from both sides, up to a channel.
 *
 * Before the handshake is complete nothing can be encrypted, so every failure closes silently; each wait has its
 * limit, because a stranger who says nothing must not hold a socket. The initiator compares the receiver's key
 * with the one that a person has seen before it names itself: a false receiver learns nothing.
 */
import { onAbort } from '../async/abort.js';
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
  type IntentAnswer,
} from './intent.js';
import { createInitiator, createResponder, type KeyPair } from './noise.js';
import type { Transport } from './transport.js';

const handshakeTimeoutMs = 10_000;
/** Of an answer, tag included: as large as any message of Noise. */
const maxAnswerBytes = 65_535;
const empty = Buffer.alloc(0);

export interface RespondOptions {
  /** The limit of each of the two waits. Default 10 000. */
  readonly timeoutMs?: number;
  /** Ends the handshake and the connection. */
  readonly signal?: AbortSignal;
}

/** An offloader that has proved its key and waits for the answer. */
export interface Responded {
  /** Undefined when it is missing or unknown: answer `rejected`, `bad_intent`. */
  readonly intent: Intent | undefined;
  readonly hello: IntentMessage;
  readonly peerStaticKey: Buffer;
  /** Lower-case hex SHA-256 of the key. */
  readonly peerPin: string;
  readonly channel: ReceiverChannel;
}

/**
 * The receiver's half. Starts the transport.
 *
 * Throws NOISE, PROTOCOL (wrong kind of message, early end, time limit) or CANCELLED; the transport is then
 * closed already, and nothing was said to the other side.
 */
export async function respond(
  transport: Transport,
  identity: KeyPair,
  options: RespondOptions = {},
): Promise<Responded> {
  const { timeoutMs = handshakeTimeoutMs } = options;
  return closingOnFailure(transport, options.signal, async (inbox) => {
    const noise = createResponder({ staticKey: identity });
    const intent = decodeIntent(noise.read(await inbox.next(timeoutMs)));
    transport.send(noise.write(empty));
    const hello = decodeIntentMessage(noise.read(await inbox.next(timeoutMs)));
    const { outgoing, incoming, remoteStatic } = noise.split();
    inbox.forbid();
    return {
      intent,
      hello,
      peerStaticKey: remoteStatic,
      peerPin: pinOf(remoteStatic),
      channel: createChannel({ transport, inbox, outgoing, incoming, parse: parseToReceiver }),
    };
  });
}

export interface InitiateOptions {
  readonly intent: Intent;
  /** Nothing for `preview`. */
  readonly hello?: Partial<IntentMessage>;
  /** The receiver's pin as a person or an earlier pairing has it. Without it any receiver is taken. */
  readonly expectedPin?: string;
  /** The limit of the wait for the second message. Default 10 000. */
  readonly timeoutMs?: number;
  /** The limit of the wait for the answer. Default as `timeoutMs`; `pair_status` needs a long one. */
  readonly answerTimeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface Initiated {
  readonly answer: IntentAnswer;
  readonly peerStaticKey: Buffer;
  readonly peerPin: string;
  readonly channel: OffloaderChannel;
}

/**
 * The offloader's half, including the wait for the answer. Starts the transport.
 *
 * Throws NOISE, PROTOCOL, CANCELLED, or PAIRING when the receiver's key is not the expected one; the transport is
 * then closed already.
 */
export async function initiate(
  transport: Transport,
  identity: KeyPair,
  options: InitiateOptions,
): Promise<Initiated> {
  const { timeoutMs = handshakeTimeoutMs, answerTimeoutMs = timeoutMs } = options;
  return closingOnFailure(transport, options.signal, async (inbox) => {
    const noise = createInitiator({ staticKey: identity });
    transport.send(noise.write(encodeIntent(options.intent)));
    noise.read(await inbox.next(timeoutMs));
    checkPin(pinOf(noise.remoteStatic()), options.expectedPin);
    transport.send(noise.write(options.hello === undefined ? empty : encodeIntentMessage(options.hello)));
    const { outgoing, incoming, remoteStatic } = noise.split();
    const sealed = await inbox.next(answerTimeoutMs);
    const answer = sealed.length > maxAnswerBytes ? undefined : decodeAnswer(incoming.decrypt(sealed));
    if (answer === undefined) throw new ReceiverError('PROTOCOL', 'the answer to the intent is not one');
    return {
      answer,
      peerStaticKey: remoteStatic,
      peerPin: pinOf(remoteStatic),
      channel: createChannel({ transport, inbox, outgoing, incoming, parse: parseToOffloader }),
    };
  });
}

function checkPin(seen: string, expected: string | undefined): void {
  if (expected === undefined || expected === seen) return;
  throw new ReceiverError('PAIRING', "the receiver's key is not the one that was paired", { expected, seen });
}

async function closingOnFailure<T>(
  transport: Transport,
  signal: AbortSignal | undefined,
  talk: (inbox: Inbox) => Promise<T>,
): Promise<T> {
  const inbox = openInbox(transport);
  const stopListening = onAbort(signal, () =>
    inbox.fail(new ReceiverError('CANCELLED', 'the handshake was cancelled')),
  );
  try {
    return await talk(inbox);
  } catch (error) {
    inbox.stop();
    transport.close();
    throw error;
  } finally {
    stopListening();
  }
}
