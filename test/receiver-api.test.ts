/** What a receiver says after its end: in TypeScript, and in the admin routes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import Koa from 'koa';

import { recordingLog } from './support/recording-log.js';
import { serveApp, startReceiver } from './support/whole.js';

const remote = '.esphome/.remote_builds/abcdefgh/kitchen/config/kitchen.yaml';

type Member = (...args: unknown[]) => unknown;

/** Every function of an object, by its name. */
function functionsOf(object: object): [string, Member][] {
  return Object.entries(object).filter((entry): entry is [string, Member] => typeof entry[1] === 'function');
}

test('After close, every function of the receiver fails with STATE, from the call of close on', async (t) => {
  const log = recordingLog();
  const { receiver } = await startReceiver(t, { log, environment: { ...process.env, TZ: 'Europe/Berlin' } });
  const { pairing, peers, jobs, retention, hostPaths } = receiver;
  receiver.subscribe(() => {});
  const closing = receiver.close();
  const members = [
    ...functionsOf(receiver).filter(([name]) => name !== 'close' && name !== 'handleUpgrade'),
    ...[pairing, peers, jobs, retention].flatMap(functionsOf),
    ...functionsOf(hostPaths).filter(([name]) => ['wipeBuild', 'removeRemote'].includes(name)),
  ];
  assert.ok(members.length >= 28, `${members.length} functions`);
  for (const when of ['while it closes', 'when it has closed']) {
    for (const [name, member] of members) {
      const call = async (): Promise<unknown> => member(remote, {});
      await assert.rejects(call(), { code: 'STATE', message: 'the receiver is closed' }, `${name} ${when}`);
    }
    await closing;
  }
  for (const member of [
    () => jobs.enqueueLocal(remote),
    () => retention.sweep(),
    () => receiver.clean(remote),
  ])
    await assert.rejects(member(), { code: 'STATE' }, 'a promise rejects');
  assert.equal(receiver.hostPaths.resolveConfigPath(remote).endsWith('kitchen.yaml'), true);
  assert.deepEqual(
    log.entries.filter((entry) => /^(?:warn|error)/.test(entry)),
    [],
  );
});

test('After close, every admin route answers 409 with STATE', async (t) => {
  const { receiver } = await startReceiver(t);
  const app = new Koa();
  receiver.mount(app);
  const port = await serveApp(t, app);
  await receiver.close();
  for (const [method, path, body] of [
    ...['state', 'pairing/requests', 'peers', 'jobs', 'jobs/x', 'usage', 'retention'].map((each) => [
      'GET',
      each,
    ]),
    ...['pairing/open', 'pairing/close', 'pairing/requests/x/reject', 'jobs/x/cancel', 'sweep'].map(
      (each) => ['POST', each],
    ),
    ['POST', 'pairing/requests/x/approve', { pin: 'x' }],
    ['DELETE', 'peers/x'],
    ['PATCH', 'retention', {}],
    ['POST', 'clean', { configuration: remote }],
    ['POST', 'reset', { all: true }],
  ] as [string, string, object?][]) {
    const response = await fetch(`http://127.0.0.1:${port}/esphome-receiver/${path}`, {
      method,
      ...(body && { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    const said = await response.json();
    assert.deepEqual(
      [response.status, said],
      [409, { error: 'STATE', message: 'the receiver is closed' }],
      path,
    );
  }
});
