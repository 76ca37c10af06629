/**
 * Hostile archives: each is refused with a message of its own and leaves nothing. Covers src/bundles/member-names.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

import type { BundleLimits } from '../../src/options/core-options.js';
import {
  bundle,
  config,
  configName,
  directory,
  end,
  file,
  manifest,
  member,
  pax,
  records,
  tar,
} from './archives.js';
import { anyBytesGiveABundleOrARefusal } from './properties.js';
import { place, refusalOf } from './send.js';

type Case = readonly [title: string, archive: Buffer, message: RegExp, limits?: Partial<BundleLimits>];

const long = (bytes: number): string => 'n'.repeat(bytes);
const link = (type: string, linkname: string): Buffer => member({ name: 'l', type, linkname });
const valid = bundle();
const notUtf8 = [file(Buffer.from([0x66, 0xff]))];

const kinds: readonly Case[] = [
  ['a symbolic link', bundle(link('2', '/etc/passwd')), /"l" is a link/],
  ['a symbolic link and a file below it', bundle(link('2', '..'), file('l/evil')), /"l" is a link/],
  ['a hard link to a member', bundle(link('1', configName)), /"l" is a link/],
  ['a hard link to the outside', bundle(link('1', '../neighbour')), /"l" is a link/],
  ['a file with a link name', bundle(member({ name: 'f', linkname: 'x' })), /"f" is a link/],
  ['a GNU long link', bundle(member({ name: '././@LongLink', type: 'K' }, long(200))), /is a link/],
  ['a link by PAX record', bundle(pax({ linkpath: '/etc/passwd' }), file('f')), /it holds a link/],
  ['a character device', bundle(member({ name: 'd', type: '3' })), /neither a file nor a directory/],
  ['a block device', bundle(member({ name: 'd', type: '4' })), /neither a file nor a directory/],
  ['a FIFO', bundle(member({ name: 'p', type: '6' })), /"p" is neither a file nor a directory/],
  ['a contiguous file', bundle(member({ name: 'c', type: '7' })), /neither a file nor a directory/],
  ['an old GNU sparse file', bundle(member({ name: 's', type: 'S' }, 'x')), /neither a file nor a directory/],
  ['a PAX sparse file', bundle(pax({ 'GNU.sparse.major': '1' }), file('s')), /sparse/],
  ['a continued volume', bundle(member({ name: 'm', type: 'M' })), /neither a file nor a directory/],
  ['a kind that does not exist', bundle(member({ name: 'z', type: 'z' })), /neither a file nor a directory/],
];

const names: readonly Case[] = [
  ['a path that leads upwards', bundle(file('../neighbour')), /"\.\.\/neighbour" is refused: .* upwards/],
  ['a path that leads up inside', bundle(file('a/../../neighbour')), /leads upwards/],
  ['a path that ends upwards', bundle(directory('a/..')), /leads upwards/],
  ['a PAX path that leads upwards', bundle(pax({ path: '../neighbour' }), file('f')), /leads upwards/],
  [
    'a GNU long name that leads upwards',
    bundle(member({ name: 'L', type: 'L' }, '../neighbour\0'), file('f')),
    /upwards/,
  ],
  ['a ustar prefix that leads upwards', bundle(member({ name: 'neighbour', prefix: '..' })), /leads upwards/],
  ['an absolute path', bundle(file('/tmp/evil')), /absolute/],
  ['an absolute PAX path', bundle(pax({ path: '/tmp/evil' }), file('f')), /absolute/],
  ['a path that leads upwards behind a backslash', bundle(file('a\\..\\evil')), /leads upwards/],
  ['a NUL', bundle(pax({ path: 'a\0b' }), file('f')), /a character that no path may have/],
  ['a line feed', bundle(pax({ path: 'a\nb' }), file('f')), /a character that no path may have/],
  ['a terminal escape', bundle(file('\x1b[2J')), /"\\u001b\[2J" is refused/],
  ['a direction override', bundle(file('a\u202egnp.yaml')), /\\u202e/],
  ['a name that is not UTF-8, twice', bundle(...notUtf8, ...notUtf8), /"f\\xff" comes twice/],
  [
    'a name that is not UTF-8 in a path that leads upwards',
    bundle(file(Buffer.from('../\xff', 'latin1'))),
    /"\.\.\/\\xff" is refused: its path leads upwards/,
  ],
  [
    'a NUL behind a byte that is not UTF-8',
    bundle(member({ name: 'x', type: 'x' }, Buffer.from('13 path=a\xff\0b\n', 'latin1')), file('f')),
    /a character that no path may have|malformed/,
  ],
  ['an empty name', bundle(file('')), /not plain/],
  ['a dot segment', bundle(file('./a')), /not plain/],
  ['an empty segment', bundle(file('a//b')), /not plain/],
  ['a directory that is the root', bundle(directory('./')), /not plain/],
  ['a name that comes twice', bundle(file('a'), file('a')), /"a" comes twice/],
  ['a second configuration', bundle(file(configName, 'other: {}')), /"kitchen.yaml" comes twice/],
  ['a second manifest', bundle(manifest()), /"manifest.json" comes twice/],
  ['a manifest in other letters beside the right one', bundle(file('Manifest.json')), /same name on some/],
  [
    'a configuration in other letters beside the right one',
    bundle(file('KITCHEN.yaml')),
    /same name on some/,
  ],
  ['a file used as a directory', bundle(file('a'), file('a/b')), /"a" is both a file and a directory/],
  ['a directory that becomes a file', bundle(file('a/b'), file('a')), /"a" is both a file and a directory/],
  ['a reserved directory that leads upwards', bundle(file('.git/../../x')), /leads upwards/],
];

const limits: readonly Case[] = [
  ['more bytes than allowed', bundle(file('a', long(99))), /more than 150 bytes/, { unpackedBytes: 150 }],
  [
    'a size that is only claimed',
    bundle(member({ name: 'a', sizeField: '77777777777' })),
    /more than 524288000 bytes/,
  ],
  ['more members than allowed', bundle(file('a')), /more than 2 members/, { members: 2 }],
  ['directories by the thousand', bundle(file('a/b/c/d')), /more than 5 members/, { members: 5 }],
  [
    'one directory again and again',
    bundle(...Array.from({ length: 4 }, () => directory('a/'))),
    /more than 5 members/,
    { members: 5 },
  ],
  [
    'a stream of headers without members',
    bundle(...Array.from({ length: 9 }, () => pax({ comment: long(8_000) }, 'g'))),
    /unpacks to more than/,
    { members: 3, unpackedBytes: 1_000 },
  ],
  ['a path that is too deep', bundle(file('a/b/c')), /deeper than 2 directories/, { depth: 2 }],
  ['a name that is too long', bundle(file(long(9))), /a name in it is over 8 bytes/, { segmentBytes: 8 }],
  ['a name of 256 bytes', bundle(pax({ path: long(256) }), file('f')), /over 255 bytes/],
  [
    'a path that is too long',
    bundle(file('a/b/c/d')),
    /its path is over 6 bytes/,
    { pathBytes: 6, segmentBytes: 6 },
  ],
  [
    'a path of a megabyte',
    bundle(member({ name: 'x', type: 'x' }, records({ path: long(1 << 20) })), file('f')),
    /too long/,
  ],
  [
    'a bomb',
    bundle(file('zeros', Buffer.alloc(4 << 20))),
    /packed more than 200 to one/,
    { ratioFreeBytes: 1 << 20 },
  ],
  [
    'a bomb behind the end',
    gzipSync(Buffer.concat([tar(manifest(), config), Buffer.alloc(4 << 20)])),
    /packed more than 200 to one/,
    { ratioFreeBytes: 1 << 20 },
  ],
  [
    'a manifest that is too long',
    gzipSync(tar(manifest({ files: [long(3_000)] }), config)),
    /manifest is over 1000 bytes/,
    { manifestBytes: 1_000 },
  ],
];

const damages: readonly Case[] = [
  ['nothing at all', Buffer.alloc(0), /gzip stream is truncated/],
  ['bytes that are no gzip', Buffer.from('PK\x03\x04'.repeat(99)), /gzip stream is damaged/],
  ['a gzip of nothing', gzipSync(''), /archive is truncated/],
  ['a gzip of text', gzipSync(long(2_000)), /archive is damaged/],
  ['a gzip cut in its middle', valid.subarray(0, valid.length / 2), /gzip stream is truncated/],
  ['a gzip without its last byte', valid.subarray(0, -1), /gzip stream is truncated/],
  ['a wrong checksum of the gzip', flipped(valid, valid.length - 6), /gzip stream is damaged/],
  ['text behind the gzip', Buffer.concat([valid, Buffer.from('more')]), /gzip stream is damaged/],
  ['zeros behind the gzip', Buffer.concat([valid, Buffer.alloc(9)]), /bytes after its gzip stream/],
  ['a second gzip', Buffer.concat([valid, valid]), /bytes after its end/],
  [
    'an archive in two gzips',
    Buffer.concat([gzipSync(manifest()), gzipSync(tar(config))]),
    /more than one gzip stream/,
  ],
  ['an empty second gzip', Buffer.concat([valid, gzipSync('')]), /more than one gzip stream/],
  ['a member cut off', gzipSync(tar(manifest(), config).subarray(0, 600)), /archive is truncated/],
  ['a header cut off', gzipSync(tar(manifest(), config).subarray(0, 1_500)), /archive is truncated/],
  ['an archive without its end', gzipSync(Buffer.concat([manifest(), config])), /archive is truncated/],
  [
    'an archive with half its end',
    gzipSync(Buffer.concat([manifest(), config, Buffer.alloc(512)])),
    /truncated/,
  ],
  [
    'a member behind one block of zeros',
    gzipSync(Buffer.concat([manifest(), config, Buffer.alloc(512), file('late'), end])),
    /bytes after its end/,
  ],
  [
    'a member behind the end',
    gzipSync(Buffer.concat([tar(manifest(), config), file('late'), end])),
    /bytes after its end/,
  ],
  ['a wrong checksum of a header', gzipSync(flipped(tar(manifest(), config), 3)), /checksum of a header/],
  ['a size that is no number', bundle(member({ name: 'a', sizeField: 'zzz' })), /a size is not a number/],
  [
    'a negative size',
    bundle(member({ name: 'a', sizeField: Buffer.alloc(12, 0xff) })),
    /a size is not a number/,
  ],
  [
    'a size beyond all numbers',
    bundle(member({ name: 'a', sizeField: Buffer.concat([Buffer.from([0x80]), Buffer.alloc(11, 0x7f)]) })),
    /archive is damaged/,
  ],
  [
    'a directory with a body',
    bundle(member({ name: 'd/', type: '5' }, long(512))),
    /archive is damaged: the checksum/,
  ],
  ['a PAX size that swallows the next header', bundle(pax({ size: '700' }), file('f')), /truncated|damaged/],
  ['a PAX size that is no number', bundle(pax({ size: '1e3' }), file('f')), /a size is not a number/],
  [
    'a PAX record without a length',
    bundle(member({ name: 'x', type: 'x' }, 'path=f\n'), file('f')),
    /malformed/,
  ],
  [
    'a PAX record that is too long',
    bundle(member({ name: 'x', type: 'x' }, '99 path=f\n'), file('f')),
    /malformed/,
  ],
  [
    'a PAX record without its end',
    bundle(member({ name: 'x', type: 'x' }, '9 path=fx'), file('f')),
    /malformed/,
  ],
  [
    'a PAX record without a value',
    bundle(member({ name: 'x', type: 'x' }, '7 path\n'), file('f')),
    /malformed/,
  ],
  [
    'two PAX headers for one member',
    bundle(pax({ path: 'a' }), pax({ path: 'b' }), file('f')),
    /two extended/,
  ],
  ['a PAX header without its member', bundle(pax({ path: 'a' })), /without its member/],
  [
    'a global PAX header with a path',
    bundle(pax({ path: 'a' }, 'g'), file('f')),
    /global header names a member/,
  ],
];

const manifests: readonly Case[] = [
  ['no manifest', gzipSync(tar(config)), /has no manifest.json/],
  ['a manifest in a folder only', gzipSync(tar(file('sub/manifest.json', '{}'), config)), /has no manifest/],
  [
    'a directory called like the manifest',
    gzipSync(tar(directory('manifest.json'), config)),
    /has no manifest/,
  ],
  [
    'a manifest that is no JSON',
    gzipSync(tar(file('manifest.json', '{'), config)),
    /manifest is not a JSON object/,
  ],
  [
    'another version',
    gzipSync(tar(manifest({ manifest_version: 2 }), config)),
    /unsupported manifest version 2: expected 1/,
  ],
  [
    'a configuration outside',
    gzipSync(tar(manifest({ config_filename: '../own.yaml' }), config)),
    /invalid configuration name "\.\.\/own.yaml"/,
  ],
  [
    'a configuration in a folder',
    gzipSync(tar(manifest({ config_filename: 'sub/kitchen.yaml' }), config, file('sub/kitchen.yaml'))),
    /invalid configuration name/,
  ],
  [
    'another configuration than announced',
    gzipSync(tar(manifest({ config_filename: 'attic.yaml' }), config, file('attic.yaml'))),
    /names "attic.yaml", but the upload announced "kitchen.yaml"/,
  ],
  ['a configuration that is not there', gzipSync(tar(manifest())), /lacks the configuration/],
  [
    'a configuration that is a directory',
    gzipSync(tar(manifest(), directory(configName))),
    /lacks the configuration/,
  ],
];

function flipped(bytes: Buffer, at: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ 0x55;
  return copy;
}

for (const [group, cases] of Object.entries({ kinds, names, limits, damages, manifests })) {
  test(`A bundle is refused, and nothing is left of it: ${group}`, async (t) => {
    const there = await place(t);
    for (const [title, archive, message, changes] of cases) {
      await t.test(title, async () => {
        const refusal = await refusalOf(there, archive, changes);
        assert.match(refusal ?? 'accepted', message);
      });
    }
  });
}

test('A bundle at each limit is accepted', async (t) => {
  const there = await place(t);
  const exact = bundle(file('a/b', long(40)));
  const bytes = 40 + JSON.stringify({ manifest_version: 1, config_filename: configName }).length + 33;
  const at = { depth: 2, segmentBytes: 13, pathBytes: 13, members: 4, unpackedBytes: bytes };
  assert.equal(await refusalOf(there, exact, at), null);
  assert.match((await refusalOf(there, exact, { ...at, unpackedBytes: bytes - 1 })) ?? '', /more than/);
  assert.match((await refusalOf(there, exact, { ...at, members: 3 })) ?? '', /more than/);
});

test('Any bytes give a typed refusal or a bundle, and a refused bundle leaves nothing', (t) =>
  anyBytesGiveABundleOrARefusal(t, 200));
