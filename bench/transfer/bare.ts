/**
 * The bare loop: the same chunks over `ws` with ChaCha20-Poly1305, base64, JSON and SHA-256, and not one check. It is
 * what these tools can do on this machine at this moment; the receiver is measured against it.
 */
import { createCipheriv, createDecipheriv, createHash } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

import { WebSocket, WebSocketServer } from 'ws';

import { randomBytes, sha256 } from './inputs.js';

const chunkBytes = 32 * 1024;
const lowWaterBytes = 64 * 1024;
const key = Buffer.alloc(32, 9);
const tagBytes = 16;
const authTagLength = { authTagLength: tagBytes };

type Message =
  | { readonly type: 'chunk'; readonly index: number; readonly data_b64: string; readonly is_last: boolean }
  | { readonly type: 'download'; readonly bytes: number }
  | { readonly type: 'hash'; readonly sha256: string };

/** Hashes what comes, and sends what is asked for. Resolves to the port. */
export async function listenBare(host: string): Promise<number> {
  const server = new WebSocketServer({ host, port: 0, perMessageDeflate: false });
  server.on('connection', (socket) => {
    const send = sender(socket);
    const take = hasher((hash) => send({ type: 'hash', sha256: hash }));
    const read = reader();
    let kept: Buffer = Buffer.alloc(0);
    socket.on('message', (data: Buffer) => {
      const message = read(data);
      if (message.type === 'chunk') take(message);
      if (message.type !== 'download') return;
      if (kept.length !== message.bytes) kept = randomBytes(message.bytes);
      void sendAll(socket, send, kept);
    });
  });
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

export interface BareClient {
  /** Milliseconds until the server has the right hash of all. */
  upload(bytes: Buffer): Promise<number>;
  /** Milliseconds until that many bytes are here. */
  download(bytes: number): Promise<number>;
  close(): void;
}

export async function connectBare(host: string, port: number): Promise<BareClient> {
  const socket = new WebSocket(`ws://${host}:${port}`, { perMessageDeflate: false });
  await once(socket, 'open');
  const send = sender(socket);
  const read = reader();
  let done: (hash: string) => void = () => {};
  const take = hasher((hash) => done(hash));
  socket.on('message', (data: Buffer) => {
    const message = read(data);
    if (message.type === 'chunk') take(message);
    if (message.type === 'hash') done(message.sha256);
  });
  return {
    async upload(bytes) {
      const expected = sha256(bytes);
      const start = performance.now();
      const answer = new Promise<string>((resolve) => (done = resolve));
      await sendAll(socket, send, bytes);
      if ((await answer) !== expected) throw new Error('the bare loop has lost something');
      return performance.now() - start;
    },
    async download(bytes) {
      const start = performance.now();
      const answer = new Promise<string>((resolve) => (done = resolve));
      send({ type: 'download', bytes });
      await answer;
      return performance.now() - start;
    },
    close: () => socket.terminate(),
  };
}

async function sendAll(socket: WebSocket, send: Send, bytes: Buffer): Promise<void> {
  for (let at = 0, index = 0; at < bytes.length; at += chunkBytes, index += 1) {
    const data_b64 = bytes.subarray(at, at + chunkBytes).toString('base64');
    const is_last = at + chunkBytes >= bytes.length;
    const sent = new Promise<void>((resolve) => send({ type: 'chunk', index, data_b64, is_last }, resolve));
    if (socket.bufferedAmount > lowWaterBytes) await sent;
  }
}

function hasher(done: (sha256: string) => void): (chunk: Message & { readonly type: 'chunk' }) => void {
  let hash = createHash('sha256');
  return ({ data_b64, is_last }) => {
    hash.update(Buffer.from(data_b64, 'base64'));
    if (!is_last) return;
    done(hash.digest('hex'));
    hash = createHash('sha256');
  };
}

/** `sent` is called when the message has left. */
type Send = (message: Message, sent?: () => void) => void;

function sender(socket: WebSocket): Send {
  const nonce = nonces();
  return (message, sent) => {
    const cipher = createCipheriv('chacha20-poly1305', key, nonce(), authTagLength);
    const body = cipher.update(JSON.stringify(message), 'utf8');
    cipher.final();
    socket.send(Buffer.concat([body, cipher.getAuthTag()]), sent);
  };
}

function reader(): (data: Buffer) => Message {
  const nonce = nonces();
  return (data) => {
    const decipher = createDecipheriv('chacha20-poly1305', key, nonce(), authTagLength);
    decipher.setAuthTag(data.subarray(-tagBytes));
    const text = decipher.update(data.subarray(0, -tagBytes)).toString();
    decipher.final();
    return JSON.parse(text) as Message;
  };
}

function nonces(): () => Buffer {
  const nonce = Buffer.alloc(12);
  let count = 0;
  return () => {
    nonce.writeUInt32LE(count, 4);
    count += 1;
    return nonce;
  };
}
