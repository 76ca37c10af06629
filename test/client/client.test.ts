import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';

import { isReceiverError, type ErrorCode } from '../../src/errors.js';
import { createOffloader, loadOffloaderIdentity, memoryTransportPair } from '../../src/koa/offloader.js';
import { pinOf } from '../../src/protocol/fingerprint.js';
import { linkSetting, offloaderId, offloaderIdentity, receiverIdentity } from '../server/setting.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { play, receiver } from './played-receiver.js';

const { pin } = receiver;

const failsWith =
  (code: ErrorCode, facts: Record<string, unknown> = {}) =>
  (error: unknown): boolean => {
    assert.ok(isReceiverError(error, code), `${code}: ${String(error)}`);
    for (const [name, value] of Object.entries(facts)) assert.equal(error.facts[name], value);
    return true;
  };

test('An identity is created once with its directory, and stays the same', async (t) => {
  const directory = join(await tempDir(t), 'state', 'client');
  const made = await loadOffloaderIdentity(directory);
  assert.deepEqual(await loadOffloaderIdentity(directory), made);
  assert.match(made.dashboardId, /^[\w-]{32}$/);
  assert.equal(made.publicKey.length, 32);
});

test("A preview shows the pin of the receiver's key, and its facts", async () => {
  const { offloader, calls, clock } = play(['ok']);
  assert.deepEqual(await offloader.preview(), {
    pin,
    esphomeVersion: '2026.10.0',
    friendlyName: 'buildbox',
    haAddon: false,
    autoProvisionSupported: true,
    requiresPairingKey: true,
  });
  assert.equal(calls[0]?.intent, 'preview');
  assert.equal(calls[0]?.hello.dashboardId, '', 'a preview tells nothing about this side');
  await waitFor(() => clock.waiting === 0, { what: 'no timer is left behind' });
});

test("A pairing request has this client's names and the pairing key; its answer is approved or pending", async () => {
  const { offloader, calls } = play(['pending'], ['approved']);
  assert.equal(await offloader.requestPairing({ pin }), 'pending');
  assert.equal(await offloader.requestPairing({ pin, pairingKey: 'ABCD-EFGH' }), 'approved');
  assert.equal(calls[0]?.hello.label, 'Home');
  assert.equal(calls[0]?.hello.friendlyName, 'hass');
  assert.equal(calls[0]?.hello.pairingKey, undefined);
  assert.equal(calls[1]?.hello.pairingKey, 'ABCD-EFGH');
  assert.match(calls[0]?.hello.dashboardId ?? '', /^[\w-]{32}$/);
});

test("Any refusal is REJECTED with the receiver's answer and reason", async () => {
  const { offloader } = play(
    ['no_pairing_window'],
    ['rejected', 'pin_mismatch'],
    ['rejected', 'no_approved_peer'],
  );
  const expected = [
    { answer: 'no_pairing_window' },
    { reason: 'pin_mismatch' },
    { reason: 'no_approved_peer' },
  ];
  await assert.rejects(offloader.requestPairing({ pin }), (error: Error) => {
    assert.match(
      error.message,
      /"no_pairing_window": pairing is closed, or the pairing key .* did not match$/,
    );
    return failsWith('REJECTED', expected[0])(error);
  });
  await assert.rejects(offloader.requestPairing({ pin }), failsWith('REJECTED', expected[1]));
  await assert.rejects(offloader.openSession({ pin }), failsWith('REJECTED', expected[2]));
});

test('A receiver with an unexpected key is told nothing and is refused', async () => {
  const { offloader, calls } = play(['ok']);
  const other = pinOf(Buffer.alloc(32, 1));
  await assert.rejects(offloader.requestPairing({ pin: other }), failsWith('PAIRING', { seen: pin }));
  await assert.rejects(offloader.openSession({ pin: other }), failsWith('PAIRING'));
  await assert.rejects(offloader.waitForApproval({ pin: other }), failsWith('PAIRING'));
  assert.deepEqual(calls, []);
});

test('Waiting for approval continues after lost connections and invalid answers, two seconds apart', async () => {
  const { offloader, calls, clock } = play('hang up', ['pending'], ['approved']);
  const waiting = offloader.waitForApproval({ pin });
  for (const count of [1, 2]) {
    await waitFor(() => calls.length === count && calls.at(-1)?.channel.signal.aborted);
    await waitFor(() => clock.waiting > 0);
    assert.equal(calls.length, count);
    clock.advance(2_000);
  }
  await waiting;
  assert.equal(calls.length, 3);
  assert.deepEqual(
    calls.map(({ intent }) => intent),
    ['pair_status', 'pair_status', 'pair_status'],
  );
});

test('Waiting for approval ends with a refusal, and with an abort at any moment', async () => {
  const refused = play(['rejected', 'no_approved_peer']);
  await assert.rejects(
    refused.offloader.waitForApproval({ pin }),
    failsWith('REJECTED', { reason: 'no_approved_peer' }),
  );

  const between = play(['pending']);
  const abort = new AbortController();
  const waiting = between.offloader.waitForApproval({ pin, signal: abort.signal });
  await waitFor(() => between.calls[0]?.channel.signal.aborted);
  await waitFor(() => between.clock.waiting > 0);
  abort.abort();
  await assert.rejects(waiting, failsWith('CANCELLED'));
  assert.equal(between.clock.waiting, 0);
  await assert.rejects(
    between.offloader.waitForApproval({ pin, signal: abort.signal }),
    failsWith('CANCELLED'),
  );
  assert.equal(between.calls.length, 1, 'an aborted wait does not even connect');
});

test('With our own receiver: preview, a pending request, its approval, a session, a build and its end', async (t) => {
  const { link, pairing, jobs, intakes } = await linkSetting(t);
  const offloader = createOffloader({
    identity: { ...offloaderIdentity, dashboardId: offloaderId },
    friendlyName: 'hass',
    connect: () => {
      const [near, far] = memoryTransportPair('192.0.2.10');
      link.accept(far);
      return Promise.resolve(near);
    },
  });
  const expected = { pin: receiverIdentity.pin };
  assert.equal((await offloader.preview()).pin, expected.pin);
  await assert.rejects(
    offloader.requestPairing(expected),
    failsWith('REJECTED', { answer: 'no_pairing_window' }),
  );
  pairing.window.open('test');
  assert.equal(await offloader.requestPairing(expected), 'pending');
  await assert.rejects(
    offloader.openSession(expected),
    failsWith('REJECTED', { reason: 'pending_not_approved' }),
  );
  const approval = offloader.waitForApproval(expected);
  await pairing.approve(offloaderId, offloaderIdentity.pin);
  await approval;

  const session = await offloader.openSession(expected);
  const bundle = Buffer.alloc(100_000, 5);
  const lines: string[] = [];
  const states: string[] = [];
  const building = session.build({
    file: 'kitchen.yaml',
    bundle,
    onOutput: (line) => lines.push(line),
    onState: (state) => states.push(state),
  });
  await waitFor(() => jobs.records()[0]?.state === 'queued');
  assert.deepEqual(Buffer.concat(intakes.all[0]?.bytes ?? []), bundle);
  jobs.move({ state: 'running' });
  const job = jobs.records()[0];
  assert.ok(job);
  jobs.emit({ type: 'output', job, line: 'Compiling\n' });
  await waitFor(() => lines.length === 1);
  jobs.move({ state: 'completed' });
  assert.equal((await building).status, 'completed');
  assert.deepEqual(states, ['queued', 'running', 'completed']);
  assert.deepEqual(lines, ['Compiling\n']);
  assert.deepEqual(session.queueStatus(), { idle: true, running: false, queueDepth: 0 });
  await link.close();
  assert.equal(await session.ended, 'server_shutting_down');
});
