/** Which questions the log of a whole receiver answers, and what it must never contain. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';

import Koa from 'koa';

import { isReceiverError } from '../../src/errors.js';
import type { Log } from '../../src/log.js';
import { waitFor } from '../support/wait-for.js';
import { newClient, pairedClient, startReceiver, yaml } from '../support/whole.js';

interface Line {
  readonly level: keyof Log;
  readonly facts: Readonly<Record<string, unknown>>;
  readonly text: string;
}

function keptLog(): { readonly log: Log; readonly lines: readonly Line[]; find(text: string): Line } {
  const lines: Line[] = [];
  const write =
    (level: keyof Log): Log['info'] =>
    (facts, text) =>
      void lines.push({ level, facts, text });
  return {
    log: { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') },
    lines,
    find(text) {
      const line = lines.findLast((each) => each.text === text);
      assert.ok(line, `no line "${text}" among ${lines.map((each) => each.text).join('; ')}`);
      return line;
    },
  };
}

test('The log shows who was approved, how long each job ran, and why a session ended', async (t) => {
  const { log, lines, find } = keptLog();
  const whole = await startReceiver(t, { log });
  const { receiver, port } = whole;
  assert.equal(find('receiver started').facts['pin'], receiver.pin);
  assert.equal(find('listening').facts['port'], port);

  const client = await newClient(t, whole, 'kitchen dashboard');
  const { dashboardId } = client;
  await assert.rejects(client.openSession(), { code: 'REJECTED' });
  const refused = find('connection refused');
  assert.deepEqual([refused.level, refused.facts['reason']], ['warn', 'no_approved_peer']);

  receiver.pairing.open();
  assert.equal(find('pairing window opened').level, 'info');
  await client.offloader.requestPairing({ pin: receiver.pin });
  await client.offloader.requestPairing({ pin: receiver.pin });
  assert.equal(lines.filter(({ text }) => text === 'pairing requested').length, 1);
  const { pin } = find('pairing requested').facts;
  await receiver.pairing.approve(dashboardId, String(pin), { by: 'the test' });
  const approved = find('dashboard approved').facts;
  assert.deepEqual(
    [approved['by'], approved['pin'], approved['dashboardId']],
    ['the test', pin, dashboardId],
  );
  receiver.pairing.close();
  find('pairing window closed');

  const session = await client.openSession();
  assert.equal(find('session opened').facts['dashboardId'], dashboardId);
  const bundle = await client.bundle('kitchen.yaml', yaml('kitchen'));
  assert.equal((await session.build({ file: 'kitchen.yaml', bundle })).status, 'completed');
  const broken = await client.bundle('broken.yaml', yaml('broken', 'exit=1'));
  assert.equal((await session.build({ file: 'broken.yaml', bundle: broken })).status, 'failed');
  const ended = lines.filter(({ text }) => text === 'job ended').map(({ facts }) => facts);
  assert.deepEqual(
    ended.map(({ file, state, reason = null }) => [file, state, reason]),
    [
      ['kitchen.yaml', 'completed', null],
      ['broken.yaml', 'failed', 'compile'],
    ],
  );
  const [accepted, started] = [find('job accepted').facts, find('job started').facts];
  assert.deepEqual([accepted['jobId'], started['jobId']], [ended[1]?.['jobId'], ended[1]?.['jobId']]);
  for (const name of ['waitedMs', 'ranMs']) assert.equal(typeof ended[0]?.[name], 'number', name);

  await receiver.retention.sweep();
  assert.equal(find('sweep finished').facts['removed'], 0);
  await receiver.peers.revoke(dashboardId, { by: 'the test' });
  assert.equal(find('dashboard revoked').facts['by'], 'the test');
  assert.equal(find('session closed').facts['reason'], 'no longer approved');
  await receiver.close();
  find('receiver closed');
});

test('A rejected request and one that expires with the window are each logged', async (t) => {
  const { log, find } = keptLog();
  const whole = await startReceiver(t, { log });
  whole.receiver.pairing.open();
  const [first, second] = [await newClient(t, whole, 'first'), await newClient(t, whole, 'second')];
  for (const { offloader } of [first, second]) await offloader.requestPairing({ pin: whole.receiver.pin });
  whole.receiver.pairing.reject(first.dashboardId, { by: 'the test' });
  whole.receiver.pairing.close();
  assert.deepEqual(find('pairing request rejected').facts, {
    dashboardId: first.dashboardId,
    by: 'the test',
  });
  assert.deepEqual(find('pairing request expired').facts, { dashboardId: second.dashboardId });
});

test('No key, token or secret reaches the log at any level', async (t) => {
  const { log, lines } = keptLog();
  const canary = (name: string): string => `${name}-${randomBytes(12).toString('hex')}`;
  const [token, secret, variable] = [canary('token'), canary('wifi'), canary('env')];
  const environment = { ...process.env, BUILD_TOKEN: variable };
  const authorize = (ctx: Koa.Context): boolean => ctx.get('authorization') === `Bearer ${token}`;
  const whole = await startReceiver(t, { log, environment, passEnvironment: ['BUILD_TOKEN'], authorize });
  const app = new Koa();
  app.silent = true;
  whole.receiver.mount(app);
  const server = app.listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/esphome-receiver/state`;
  for (const value of [`Bearer ${token}`, `Bearer ${token}x`])
    await fetch(url, { headers: { authorization: value } });

  let key = '';
  whole.receiver.pairing.armOneTimeKey((made) => (key = made));
  const byKey = await newClient(t, whole, 'by key');
  const wrong = 'AAAA-BBBB-CCCC-DDDD';
  const { pin } = whole.receiver;
  await assert.rejects(byKey.offloader.requestPairing({ pin, pairingKey: wrong }));
  assert.equal(await byKey.offloader.requestPairing({ pin, pairingKey: key }), 'approved');

  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  for (const [file, knobs] of [
    ['kitchen.yaml', ''],
    ['broken.yaml', 'exit=1'],
  ] as const) {
    const text = `${yaml('kitchen', knobs)}# password: ${secret}\n`;
    await session.build({ file, bundle: await client.bundle(file, text) });
  }
  await assert
    .rejects(session.build({ file: 'kitchen.yaml', bundle: Buffer.from(secret) }), (error) =>
      isReceiverError(error),
    )
    .catch(() => {});
  await waitFor(() => lines.length > 20, { what: 'some lines' });

  const state = join(whole.base, 'config', '.esphome-receiver');
  const privateKey = await readFile(join(state, 'identity.key'));
  const canaries = [token, secret, variable, key, wrong];
  for (const encoding of ['hex', 'base64', 'base64url', 'latin1'] as const)
    canaries.push(privateKey.toString(encoding));
  const text = lines.map(({ facts, text: event }) => `${event} ${shown(facts)}`).join('\n');
  for (const each of canaries) assert.ok(!text.includes(each), each);
});

/** All text that an error or a value can add to a log, with stacks and causes. */
function shown(facts: object): string {
  return JSON.stringify(facts, (_name, value: unknown) =>
    value instanceof Error
      ? Object.assign({}, value, { text: String(value), stack: value.stack, cause: value.cause })
      : value instanceof Uint8Array
        ? Buffer.from(value).toString('hex')
        : value,
  );
}
