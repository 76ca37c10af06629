/** The options of a mounted receiver: its own and those of the core together. Covers src/koa/receiver-options.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { resolveReceiverOptions } from '../../src/koa/options.js';

const configDir = '/config/esphome';

test('The mount has its own defaults in addition to those of the core', () => {
  const { prefix, announce, authorize, stateDir } = resolveReceiverOptions({ configDir });
  assert.deepEqual(
    [prefix, announce, authorize, stateDir],
    ['/esphome-receiver', false, undefined, `${configDir}/.esphome-receiver`],
  );
});

test('A prefix of the admin routes is absolute, without an ending that two routers interpret differently', () => {
  for (const prefix of ['/builds', '/a/b', '/A.b_c~d-e']) {
    assert.equal(resolveReceiverOptions({ configDir, prefix }).prefix, prefix);
  }
  for (const prefix of ['builds', '/', '', '/a/', '/a//b', '/:id', '/a b', '/a?b']) {
    assert.throws(() => resolveReceiverOptions({ configDir, prefix }), {
      code: 'OPTIONS',
      message: `invalid prefix: expected an absolute path such as "/builds", got "${prefix}"`,
    });
  }
});

test('An invalid option is named, whichever part it belongs to', () => {
  const refused: readonly (readonly [options: object, message: string])[] = [
    [{ authorize: true }, 'invalid authorize: expected a function of the context, got true'],
    [{ prefx: '/x' }, 'unknown option "prefx" (did you mean "prefix"?)'],
    [{ slot: 3 }, 'unknown option "slot" (did you mean "slots"?)'],
    [{ announce: { httpPrt: 80 } }, 'unknown option "announce.httpPrt" (did you mean "httpPort"?)'],
  ];
  for (const [options, message] of refused) {
    assert.throws(() => resolveReceiverOptions({ configDir, ...options }), { code: 'OPTIONS', message });
  }
});
