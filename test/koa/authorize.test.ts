import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Context } from 'koa';

import { refusal } from '../../src/koa/authorize.js';

function request(remoteAddress: string, headers: Record<string, string>): Context {
  return { req: { headers, socket: { remoteAddress } } } as unknown as Context;
}

const local = { host: 'localhost:6052' };

const withoutHook: readonly (readonly [string, string, Record<string, string>, boolean])[] = [
  ['this machine by name', '127.0.0.1', local, true],
  ['this machine by address', '::ffff:127.0.0.1', { host: '127.0.0.1' }, true],
  ['this machine by IPv6', '::1', { host: '[::1]:6052' }, true],
  ["the host's own page", '127.0.0.1', { ...local, origin: 'http://localhost:6052' }, true],
  ['a neighbour on the network', '192.0.2.7', { host: '192.0.2.1' }, false],
  ['a rebound host name', '127.0.0.1', { host: 'evil.example:6052' }, false],
  ['a host name that begins like a loopback address', '127.0.0.1', { host: '127.0.0.1.evil.example' }, false],
  ['a proxy on this machine', '127.0.0.1', { ...local, 'x-forwarded-for': '192.0.2.7' }, false],
  ['a page from another site', '127.0.0.1', { ...local, origin: 'https://evil.example' }, false],
  ['a page without an origin', '127.0.0.1', { ...local, origin: 'null' }, false],
  ['a form of another site', '127.0.0.1', { ...local, 'sec-fetch-site': 'cross-site' }, false],
  ['another port of this machine', '127.0.0.1', { ...local, origin: 'http://localhost:8080' }, false],
  ['a request without a host', '127.0.0.1', {}, false],
];

for (const [who, address, headers, passes] of withoutHook) {
  test(`Without an authorize hook, ${who} is ${passes ? 'allowed' : 'refused'}`, async () => {
    const refused = await refusal(request(address, headers), undefined);
    assert.equal(refused === null, passes);
    if (refused) assert.equal(refused.status, 403);
  });
}

test('An authorize hook decides about every request, including remote and proxied ones', async () => {
  const far = request('192.0.2.7', { host: 'dash.example', 'x-forwarded-for': '198.51.100.1' });
  assert.equal(await refusal(far, () => Promise.resolve(true)), null);
  for (const no of [false, undefined, null, Promise.resolve(false)]) {
    assert.equal((await refusal(far, () => no))?.status, 401);
  }
});

test('A page from another site is refused before the hook is called', async () => {
  const foreign = request('127.0.0.1', { ...local, origin: 'https://evil.example' });
  assert.equal((await refusal(foreign, () => assert.fail('asked')))?.status, 403);
});

test('An error that the hook throws reaches the host', async () => {
  await assert.rejects(
    refusal(request('127.0.0.1', local), () => {
      throw new Error('session store is down');
    }),
    /session store/,
  );
});
