/**
 * Valid and hostile archives for tests. The hostile headers are made block by
 * block, because every tar library refuses to write some of them.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

import { entriesInSync, onDisk } from '../../src/disk/names.js';

export interface HeaderFields {
  readonly name: string | Buffer;
  readonly type?: string;
  readonly mode?: number;
  readonly linkname?: string;
  readonly prefix?: string | Buffer;
  /** The raw field, if it differs from the body's length. */
  readonly sizeField?: string | Buffer;
}

/** One member: a header with a valid checksum, the body, padding. */
export function member(fields: HeaderFields, body: string | Buffer = ''): Buffer {
  const bytes = Buffer.from(body);
  const block = Buffer.alloc(512);
  Buffer.from(fields.name).copy(block, 0);
  block.write((fields.mode ?? 0o644).toString(8).padStart(7, '0'), 100);
  block.write('0000000\x000000000\0', 108);
  Buffer.from(fields.sizeField ?? bytes.length.toString(8).padStart(11, '0')).copy(block, 124);
  block.write('00000000000', 136);
  block.write(fields.type ?? '0', 156);
  block.write(fields.linkname ?? '', 157);
  block.write('ustar\x0000', 257);
  Buffer.from(fields.prefix ?? '').copy(block, 345);
  block.fill(' ', 148, 156);
  block.write(
    `${block
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  );
  return Buffer.concat([block, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
}

export function file(name: string | Buffer, body: string | Buffer = 'x'): Buffer {
  return member({ name }, body);
}

export function directory(name: string): Buffer {
  return member({ name, type: '5', mode: 0o755 });
}

/** PAX records by their byte lengths. */
export function records(values: Readonly<Record<string, string>>): string {
  return Object.entries(values)
    .map(([key, value]) => {
      const rest = Buffer.byteLength(` ${key}=${value}\n`);
      let length = rest;
      while (`${length}`.length + rest !== length) length = `${length}`.length + rest;
      return `${length} ${key}=${value}\n`;
    })
    .join('');
}

/** A PAX header whose path is bytes of any kind, as Python writes a name that is not UTF-8. */
export function paxPath(path: Buffer): Buffer {
  const record = Buffer.from(records({ path: 'n'.repeat(path.length) }));
  path.copy(record, record.length - 1 - path.length);
  return member(
    { name: 'PaxHeader', type: 'x' },
    Buffer.concat([Buffer.from(records({ hdrcharset: 'BINARY' })), record]),
  );
}

export function pax(values: Readonly<Record<string, string>>, type = 'x'): Buffer {
  return member({ name: 'PaxHeader', type }, records(values));
}

export const end = Buffer.alloc(1024);

/** The bytes of a whole archive: the members, then the end. */
export function tar(...members: readonly Buffer[]): Buffer {
  return Buffer.concat([...members, end]);
}

export const configName = 'kitchen.yaml';

export function manifest(changes: Readonly<Record<string, unknown>> = {}): Buffer {
  return file(
    'manifest.json',
    JSON.stringify({ manifest_version: 1, config_filename: configName, ...changes }),
  );
}

export const config = file(configName, 'esphome: { name: kitchen }\nhost:\n');

/** A bundle that is valid except for the given members. */
export function bundle(...members: readonly Buffer[]): Buffer {
  return gzipSync(tar(manifest(), config, ...members));
}

/** Every file below a directory with its content; directories end in a slash. Sorted. */
export async function treeOf(root: string): Promise<ReadonlyMap<string, string>> {
  const tree = new Map<string, string>();
  const walk = async (below: string): Promise<void> => {
    for (const { name, isDirectory, isFile } of entriesInSync(join(root, below))) {
      const path = below + name;
      tree.set(isDirectory ? `${path}/` : path, isDirectory ? '' : 'neither a file nor a directory');
      if (isDirectory) await walk(`${path}/`);
      else if (isFile) tree.set(path, await readFile(onDisk(join(root, path)), 'latin1'));
    }
  };
  await walk('');
  return new Map([...tree].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
