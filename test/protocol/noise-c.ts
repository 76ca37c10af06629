/**
 * A third implementation of the handshake: noise-c, written by others in C, as WebAssembly. For tests only: it has no
 * types, and its loader takes over the process's handlers for errors, which are given back at once.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

import type { Ended, Keys, OpenSide, Side } from './noise-sides.js';

const internals = '_lib_internal';
const address = '_state';
const fixedEphemeral = '_noise_handshakestate_get_fixed_ephemeral_dh';
const setPrivateKey = '_noise_dhstate_set_keypair_private';

interface CipherState {
  EncryptWithAd(associated: Uint8Array, plaintext: Uint8Array): Uint8Array;
  DecryptWithAd(associated: Uint8Array, ciphertext: Uint8Array): Uint8Array;
  free(): void;
}

interface HandshakeState {
  /** The address of the C struct. */
  readonly [address]: unknown;
  Initialize(prologue: Uint8Array | null, staticKey: Uint8Array): void;
  WriteMessage(payload: Uint8Array): Uint8Array;
  ReadMessage(message: Uint8Array, payloadNeeded: true): Uint8Array;
  GetHandshakeHash(): Uint8Array;
  GetRemotePublicKey(): Uint8Array;
  /** The ciphers to send and to receive. Frees this object. */
  Split(): readonly [CipherState, CipherState];
  free(): void;
}

interface Bytes {
  readonly length: number;
  free(): void;
}

/** C functions that the wrapper does not expose. */
interface Internal {
  allocateBytes(bytes: number, value: Uint8Array): Bytes;
  readonly [fixedEphemeral]: (state: unknown) => unknown;
  readonly [setPrivateKey]: (keyPair: unknown, key: Bytes, bytes: number) => number;
}

interface Library {
  readonly HandshakeState: new (protocol: string, role: number) => HandshakeState;
  readonly constants: Readonly<Record<string, number>>;
  readonly [internals]: Internal;
}

type Create = (options: { wasmBinary: Buffer }, ready: (library: Library) => void) => void;

export interface NoiseC {
  readonly open: OpenSide;
  /** Frees the memory of every side so far, which makes them unusable. */
  freeAll(): void;
}

const none = new Uint8Array();
const require = createRequire(import.meta.url);

/** A new instance. It becomes slow after some thousand sides, because its wrapper keeps a list of them. */
export async function loadNoiseC(): Promise<NoiseC> {
  const library = await load();
  const toFree = new Set<{ free(): void }>();

  function openState({ s, e, prologue }: Keys, initiator: boolean): HandshakeState {
    const { constants, [internals]: internal } = library;
    const role = initiator ? constants['NOISE_ROLE_INITIATOR'] : constants['NOISE_ROLE_RESPONDER'];
    const state = new library.HandshakeState('Noise_XX_25519_ChaChaPoly_SHA256', role as number);
    const key = internal.allocateBytes(0, e);
    const ephemeral = internal[fixedEphemeral](state[address]);
    const error = internal[setPrivateKey](ephemeral, key, key.length);
    key.free();
    if (error !== 0) throw new Error(`noise-c takes no such ephemeral key: error ${error}`);
    state.Initialize(prologue.length > 0 ? prologue : null, s);
    toFree.add(state);
    return state;
  }

  function openSide(keys: Keys, initiator: boolean): Side {
    const state = openState(keys, initiator);
    /** After an error, the wrapper has already freed the state. */
    function refusing<T>(step: () => T): T {
      if (!toFree.has(state)) throw new Error('the state is gone');
      toFree.delete(state);
      const result = step();
      toFree.add(state);
      return result;
    }
    return {
      write: (payload) => refusing(() => state.WriteMessage(payload)),
      read: (message) => refusing(() => state.ReadMessage(message, true)),
      end: () => endOf(state),
    };
  }

  function endOf(state: HandshakeState): Ended {
    const handshakeHash = state.GetHandshakeHash();
    const remoteStatic = state.GetRemotePublicKey();
    toFree.delete(state);
    const [outgoing, incoming] = state.Split();
    toFree.add(outgoing).add(incoming);
    return {
      handshakeHash,
      remoteStatic,
      encrypt: (plaintext) => outgoing.EncryptWithAd(none, plaintext),
      decrypt: (ciphertext) => incoming.DecryptWithAd(none, ciphertext),
    };
  }

  return {
    open: openSide,
    freeAll() {
      for (const each of toFree) each.free();
      toFree.clear();
    },
  };
}

/** Removes the listeners of its loader, one of which ends the process on a rejection. */
async function load(): Promise<Library> {
  const create = require('noise-c.wasm') as Create;
  const wasmBinary = readFileSync(require.resolve('noise-c.wasm/src/noise-c.wasm'));
  const events = ['uncaughtException', 'unhandledRejection'] as const;
  const before = events.map((event) => process.rawListeners(event));
  const library = await new Promise<Library>((resolve) => {
    create({ wasmBinary }, resolve);
    for (const [index, event] of events.entries()) {
      const strangers = process.rawListeners(event).filter((each) => !before[index]?.includes(each));
      for (const each of strangers) process.removeListener(event, each as () => void);
    }
  });
  return library;
}
