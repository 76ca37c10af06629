import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { assertInside, assertUnlinked, isInside } from '../../src/disk/contained.js';

let base = '';
before(async () => {
  base = await mkdtemp(join(tmpdir(), 'contained-'));
  await mkdir(join(base, 'root', 'kitchen'), { recursive: true });
  await mkdir(join(base, 'root2'));
  await mkdir(join(base, 'outside'));
  await symlink(join(base, 'outside'), join(base, 'root', 'way-out'));
  await symlink(join(base, 'root'), join(base, 'alias'));
  await symlink('nowhere', join(base, 'root', 'dangling'));
  await symlink('../outside/new', join(base, 'root', 'dangling-out'));
  await symlink('circle', join(base, 'root', 'circle'));
});
after(() => rm(base, { recursive: true }));

const inside: readonly (readonly [string, string, string, boolean])[] = [
  ['a directory below', 'root', 'root/kitchen', true],
  ['a file yet to come, several levels deep', 'root', 'root/kitchen/a/b/c', true],
  ['a path through an alias of the root', 'root', 'alias/kitchen', true],
  ['a root reached through an alias', 'alias', 'root/kitchen/x', true],
  ['the root itself', 'root', 'root', false],
  ['a sibling whose name begins alike', 'root', 'root2', false],
  ['a parent', 'root', '.', false],
  ['a place behind a link', 'root', 'root/way-out', false],
  ['a file yet to come behind a link', 'root', 'root/way-out/x/y', false],
  ['a path that climbs out', 'root', 'root/kitchen/../../outside', false],
  ['a link that leads nowhere yet, inside', 'root', 'root/dangling/x', true],
  ['a link that leads nowhere yet, outside', 'root', 'root/dangling-out/x', false],
  ['a name that begins with two dots', 'root', 'root/..kitchen', true],
];

for (const [what, root, path, expected] of inside) {
  test(`${what} is ${expected ? 'inside' : 'not inside'}`, async () => {
    assert.equal(await isInside(join(base, root), `${base}/${path}`), expected);
  });
}

test('a path outside is refused without its name in the message', async () => {
  await assert.rejects(
    assertInside(join(base, 'root'), join(base, 'outside'), 'the build'),
    (error: Error) => {
      assert.equal((error as { code?: string }).code, 'TRAVERSAL');
      assert.ok(!error.message.includes(base));
      return true;
    },
  );
});

test('a path through a link is refused even if the link stays inside, a plain one is not', async () => {
  await symlink('kitchen', join(base, 'root', 'twin'));
  await assertUnlinked(join(base, 'root'), join(base, 'root', 'kitchen', 'new'));
  await assertUnlinked(join(base, 'alias'), join(base, 'alias', 'kitchen'));
  await assert.rejects(assertUnlinked(join(base, 'root'), join(base, 'root', 'twin')), { code: 'TRAVERSAL' });
  await assert.rejects(assertUnlinked(join(base, 'root'), join(base, 'root', 'twin', 'new')), {
    code: 'TRAVERSAL',
  });
});

test('a cycle of links is an error, not an endless loop', async () => {
  await assert.rejects(isInside(join(base, 'root'), join(base, 'root', 'circle')), { code: 'ELOOP' });
});
