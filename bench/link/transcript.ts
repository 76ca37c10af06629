/** The two messages of an initiator, recorded once against a responder whose keys are fixed. */
import { createInitiator, createResponder, type KeyPair } from '../../src/protocol/noise.js';
import { encodeIntentMessage, encodeIntent } from '../../src/protocol/intent.js';
import { identityOf } from '../../src/peers/identity.js';
import { keyOf, type BareKey } from './responder.js';

const ephemeralKey = identityOf(Buffer.alloc(32, 8));

/** The responder's second key pair in the recording. */
export const replayedKey: BareKey = keyOf(ephemeralKey.privateKey);

export function transcript(staticKey: KeyPair): { readonly first: Buffer; readonly third: Buffer } {
  const initiator = createInitiator({ staticKey: identityOf(Buffer.alloc(32, 9)) });
  const responder = createResponder({ staticKey, ephemeralKey });
  const first = initiator.write(encodeIntent('preview'));
  responder.read(first);
  initiator.read(responder.write(Buffer.alloc(0)));
  return { first, third: initiator.write(encodeIntentMessage({})) };
}
