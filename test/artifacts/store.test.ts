/** Covers src/artifacts/pack.ts. */
import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { mkdir, readdir, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { test, type TestContext } from 'node:test';
import { gunzipSync } from 'node:zlib';

import { extract } from 'tar-stream';

import { collectArtifacts, type BuildArtifacts } from '../../src/artifacts/collect.js';
import { packArtifacts } from '../../src/artifacts/pack.js';
import { createArtifactStore } from '../../src/artifacts/store.js';
import { tempDir } from '../support/temp-dir.js';
import { buildTree, built, node, type BuildTree } from './build-tree.js';

const program = `build/${node}/.pioenvs/${node}/program`;
const firmware = randomBytes(700_001).toString('latin1');

async function hostBuild(t: TestContext): Promise<{ tree: BuildTree; build: BuildArtifacts }> {
  const tree = await buildTree(t, {
    espPlatform: 'HOST',
    toolchain: 'host',
    firmware: `.pioenvs/${node}/program`,
  });
  await tree.add([program, firmware], ...built('build_info.json'));
  return { tree, build: await collectArtifacts(tree) };
}

interface Entry {
  readonly name: string;
  readonly type: string | null | undefined;
  readonly mode: number | undefined;
  readonly uid: number | undefined;
  readonly mtimeMs: number | undefined;
  readonly content: string;
}

async function entriesOf(archive: Buffer): Promise<Entry[]> {
  const entries: Entry[] = [];
  const reader = extract();
  Readable.from([gunzipSync(archive)]).pipe(reader);
  for await (const entry of reader) {
    const { name, type, mode, uid, mtime } = entry.header;
    entries.push({
      name,
      type,
      mode,
      uid,
      mtimeMs: mtime?.getTime(),
      content: (await buffer(entry)).toString(),
    });
  }
  return entries;
}

test('An archive contains every member in order, as plain files without owner and time', async (t) => {
  const { build } = await hostBuild(t);
  const store = createArtifactStore(join(await tempDir(t), 'new', 'artifacts'));
  const id = randomUUID();
  const facts = await store.put(id, build);
  const stored = await store.open(id);
  const archive = await buffer(stored.read());
  assert.equal(archive.length, facts.bytes);
  assert.equal(createHash('sha256').update(archive).digest('hex'), facts.sha256);
  assert.equal(facts.firmwareOffset, '0x0');
  const plain = { type: 'file', mode: 0o644, uid: 0, mtimeMs: 0 };
  assert.deepEqual(await entriesOf(archive), [
    { name: 'storage.json', ...plain, content: build.storage.raw.toString() },
    { name: 'idedata.json', ...plain, content: '{}' },
    { name: 'platformio.ini', ...plain, content: '' },
    { name: 'build_info.json', ...plain, content: `build/${node}/build_info.json` },
    { name: `.pioenvs/${node}/program`, ...plain, mode: 0o755, content: firmware },
  ]);
});

test('Equal builds make equal archives, and an archive can be read repeatedly in large pieces', async (t) => {
  const { build } = await hostBuild(t);
  const store = createArtifactStore(await tempDir(t));
  const [one, two] = [randomUUID(), randomUUID()];
  assert.deepEqual(await store.put(one, build), await store.put(two, build));
  const stored = await store.open(one);
  const lengths: number[] = [];
  for await (const piece of stored.read()) lengths.push(piece.length);
  assert.ok(lengths.length > 1);
  assert.ok(lengths.slice(0, -1).every((length) => length === 262_144));
  assert.deepEqual(await buffer(stored.read()), await buffer((await store.open(two)).read()));
});

test('A later build does not change an earlier job’s result, and removing a result does not break a download', async (t) => {
  const { tree, build } = await hostBuild(t);
  const store = createArtifactStore(await tempDir(t));
  const id = randomUUID();
  const { sha256 } = await store.put(id, build);
  await tree.add([program, 'another']);
  const source = (await store.open(id)).read()[Symbol.asyncIterator]();
  const hash = createHash('sha256').update((await source.next()).value as Buffer);
  await store.remove(id);
  await store.remove(id);
  for (let next = await source.next(); !next.done; next = await source.next()) hash.update(next.value);
  assert.equal(hash.digest('hex'), sha256);
  await assert.rejects(store.open(id), { code: 'NOT_FOUND' });
});

test('A copy has its own id, and the two are independent', async (t) => {
  const { build } = await hostBuild(t);
  const directory = await tempDir(t);
  const store = createArtifactStore(directory);
  const [one, two, three] = [randomUUID(), randomUUID(), randomUUID()];
  const facts = await store.put(one, build);
  assert.deepEqual(await store.copy(one, two), facts);
  await store.copy(one, two);
  assert.equal((await readdir(directory)).length, 4, 'and nothing beside the two');
  const bytes = await buffer((await store.open(one)).read());
  await store.remove(one);
  assert.deepEqual(await buffer((await store.open(two)).read()), bytes);
  await assert.rejects(store.copy(one, three), { code: 'NOT_FOUND' });
  await truncate(join(directory, `${two}.tar.gz`), 100);
  await assert.rejects(store.copy(two, three), { code: 'NOT_FOUND' });
  assert.equal((await readdir(directory)).length, 2);
});

test('A member that changes between collecting and packing is refused, and nothing is stored', async (t) => {
  const store = createArtifactStore(await tempDir(t));
  const root = await tempDir(t);
  const changes: Record<string, (path: string) => Promise<void>> = {
    longer: (path) => writeFile(path, `${firmware}x`),
    shorter: (path) => truncate(path, 10),
    'a link': async (path) => {
      await rename(path, join(root, 'moved'));
      await symlink(join(root, 'moved'), path);
    },
    gone: (path) => rm(path),
    'a folder': async (path) => {
      await rm(path);
      await mkdir(path);
    },
  };
  for (const [title, change] of Object.entries(changes)) {
    const { tree, build } = await hostBuild(t);
    await change(join(tree.dataDir, program));
    const message = title === 'a folder' ? /something else/ : /changed while/;
    const expected = title.endsWith('er') ? { code: 'ARTIFACTS', message } : /ELOOP|ENOENT/;
    const directory = await tempDir(t);
    await assert.rejects(createArtifactStore(directory).put(randomUUID(), build), expected, title);
    assert.deepEqual(await readdir(directory), [], title);
  }
  await assert.rejects(store.open(randomUUID()), { code: 'NOT_FOUND' });
});

test('An archive over the limit is refused, and an existing file stays', async (t) => {
  const { build } = await hostBuild(t);
  const directory = await tempDir(t);
  await assert.rejects(packArtifacts({ ...build, maxBytes: 1_000 }, join(directory, 'new')), {
    code: 'ARTIFACTS',
    message: /archive is over 1000 bytes/,
  });
  assert.deepEqual(await readdir(directory), []);
  await writeFile(join(directory, 'old'), 'kept');
  await assert.rejects(packArtifacts(build, join(directory, 'old')), { code: 'EEXIST' });
  assert.deepEqual(await readdir(directory), ['old']);
});

test('A name that is too long for a tar header is refused', async (t) => {
  const { build } = await hostBuild(t);
  for (const name of ['n'.repeat(101), 'grö\u00dfe.bin']) {
    const members = [{ name, source: Buffer.from('x'), size: 1, executable: false }];
    await assert.rejects(packArtifacts({ ...build, members }, join(await tempDir(t), 'new')), {
      code: 'ARTIFACTS',
      message: /name/,
    });
  }
  const name = `.pioenvs/${'n'.repeat(128)}/zephyr/app_update.bin`;
  const members = [{ name, source: Buffer.from('x'), size: 1, executable: false }];
  const directory = await tempDir(t);
  const id = randomUUID();
  await createArtifactStore(directory).put(id, { ...build, members });
  const [entry] = await entriesOf(await buffer((await createArtifactStore(directory).open(id)).read()));
  assert.equal(entry?.name, name);
});

test('Files that a crash or another program leaves in the store are not results, and the sweep removes them', async (t) => {
  const { build } = await hostBuild(t);
  const directory = await tempDir(t);
  const store = createArtifactStore(directory);
  const [whole, cut, bare, odd, forgotten] = Array.from({ length: 5 }, () => randomUUID()) as [
    ...[string, string, string, string, string],
  ];
  for (const id of [whole, cut, bare, odd, forgotten]) await store.put(id, build);
  await truncate(join(directory, `${cut}.tar.gz`), 100);
  await rm(join(directory, `${bare}.json`));
  await writeFile(join(directory, `${odd}.json`), '{"bytes": -1');
  await writeFile(join(directory, `${randomUUID()}.tmp`), 'half');
  for (const id of [cut, bare, odd, '../../etc/passwd', '', `${whole}/x`]) {
    await assert.rejects(store.open(id), { code: 'NOT_FOUND' }, id);
  }
  await store.sweep(() => Promise.resolve(new Set([whole])));
  assert.deepEqual((await readdir(directory)).toSorted(), [`${whole}.json`, `${whole}.tar.gz`]);
  await store.open(whole);
});
