/** The keys of the handshake, one generated and one imported. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { agree, generateKeyPair } from '../../src/protocol/x25519.js';
import { identityOf } from '../../src/peers/identity.js';

test('Both sides of an agreement get the same secret, with a generated and an imported key', () => {
  const [made, read] = [generateKeyPair(), identityOf(Buffer.alloc(32, 7))];
  assert.deepEqual(agree(made, read.publicKey), agree(read, made.publicKey));
  assert.deepEqual(identityOf(made.privateKey).publicKey, made.publicKey);
});
