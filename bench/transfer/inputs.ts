/**
 * What travels, the same bytes at every run: bundles as they are in life, mostly fonts and pictures that no
 * compression makes smaller, some text that it does; and machine code for the way back.
 */
import { createCipheriv, createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';

import type { AnnouncedBundle } from '../../src/koa/offloader.js';
import { bytesMember } from '../../src/artifacts/collect.js';
import { tarOf } from '../../src/artifacts/pack.js';

export const mebibyte = 1024 * 1024;
export const configuration = 'bench.yaml';
export const node = 'bench';

const pictureBytes = mebibyte;
const textBytes = 64 * 1024;
const textsInFolder = 16;
/** Random bytes stay as they are, text shrinks to a quarter: together a little under the size that is asked for. */
const pictureShare = 0.95;
const textShare = 0.12;

/** A bundle of at most `packedBytes`, and nearly as large. */
export async function makeBundle(packedBytes: number): Promise<Buffer> {
  const yaml = `esphome:\n  name: ${node}\nesp32:\n`;
  const manifest = { manifest_version: 1, config_filename: configuration };
  const files = [
    bytesMember('manifest.json', Buffer.from(JSON.stringify(manifest))),
    bytesMember(configuration, Buffer.from(yaml)),
  ];
  const pictures = randomBytes(Math.floor(packedBytes * pictureShare));
  for (let at = 0; at < pictures.length; at += pictureBytes) {
    files.push(bytesMember(`pictures/${at}.png`, pictures.subarray(at, at + pictureBytes)));
  }
  const text = textOf(Math.floor(packedBytes * textShare));
  for (let at = 0; at < text.length; at += textBytes) {
    const folder = `components/${Math.floor(at / textBytes / textsInFolder)}`;
    files.push(bytesMember(`${folder}/sensor_${at}.h`, text.subarray(at, at + textBytes)));
  }
  const bundle = await promisify(gzip)(await buffer(tarOf(files, true)), { level: 1 });
  if (bundle.length > packedBytes) throw new Error(`the bundle has ${bundle.length} bytes, too many`);
  return bundle;
}

let stamp = 0;

/** Makes it another archive of the same content, by the time in its gzip header, as `esphome bundle` does. */
export function renew(bundle: Buffer): Buffer {
  stamp += 1;
  bundle.writeUInt32LE(stamp, 4);
  return bundle;
}

/** Announced with its hash, so that the hashing is no part of the upload. */
export function announce(bundle: Buffer, onLastChunk: () => void): AnnouncedBundle {
  return { bytes: pieces(), size: bundle.length, sha256: sha256(bundle) };
  function* pieces(): Generator<Buffer> {
    yield bundle;
    onLastChunk();
  }
}

export function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The same at every run, and nothing that gzip could make smaller. */
export function randomBytes(length: number): Buffer {
  const stream = createCipheriv('chacha20', Buffer.alloc(32, 7), Buffer.alloc(16));
  return stream.update(Buffer.alloc(length));
}

/** Real machine code: the middle of this machine's node. */
export async function machineCode(length: number): Promise<Buffer> {
  const file = await open(process.execPath);
  try {
    const { size } = await file.stat();
    const code = Buffer.alloc(length);
    const { bytesRead } = await file.read(code, 0, length, Math.max(0, Math.floor((size - length) / 2)));
    if (bytesRead < length) throw new Error(`node has only ${size} bytes`);
    return code;
  } finally {
    await file.close();
  }
}

function textOf(length: number): Buffer {
  const random = randomBytes(length);
  const lines: string[] = [];
  let size = 0;
  for (let at = 0; size < length; at += 6) {
    const [a, b] = [random.readUInt16LE(at), random.readUIntLE(at + 2, 3)];
    const line = `  this->sensor_${a}->set_accuracy_decimals(${a % 4});  // calibrated to 0x${b.toString(16)}\n`;
    lines.push(line);
    size += line.length;
  }
  return Buffer.from(lines.join('')).subarray(0, length);
}
