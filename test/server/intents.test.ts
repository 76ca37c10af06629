/** The answer after the handshake, field by field, and the cases without one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { initiate } from '../../src/protocol/handshake.js';
import type { IntentAnswer } from '../../src/protocol/intent.js';
import { memoryTransportPair } from '../../src/protocol/transport.js';
import type { Intent } from '../../src/protocol/constants.js';
import { linkSetting, offloaderId, offloaderIdentity, until, type Setting } from './setting.js';

const hello = { dashboardId: offloaderId, label: 'Home' };
const about = {
  esphome_version: '2026.10.0',
  auto_provision_supported: false,
  reset_build_env_supported: false,
  friendly_name: 'buildbox',
  ha_addon: false,
};

async function answerTo(setting: Setting, intent: Intent, changes: object = {}): Promise<IntentAnswer> {
  const { answer } = await setting.connect(intent, { ...hello, ...changes });
  return answer;
}

test('A refusal has all fields of an answer, and a reason', async (t) => {
  const setting = await linkSetting(t);
  const refused = { intent_response: 'rejected', ...about, reason: 'no_approved_peer' };
  assert.deepEqual(await answerTo(setting, 'peer_link'), refused);
  assert.deepEqual(await answerTo(setting, 'pair_status'), refused);
});

test('A pending request has no reason, a session that must wait for it has one', async (t) => {
  const setting = await linkSetting(t);
  setting.pairing.window.open('page');
  assert.deepEqual(await answerTo(setting, 'pair_request'), { intent_response: 'pending', ...about });
  assert.deepEqual(await answerTo(setting, 'peer_link'), {
    intent_response: 'pending',
    ...about,
    reason: 'pending_not_approved',
  });
});

test('A closed window, a wrong key and no key get the same answer, and a full list takes the newcomer', async (t) => {
  const closed = await answerTo(await linkSetting(t), 'pair_request');
  assert.deepEqual(closed, { intent_response: 'no_pairing_window', ...about });
  const armed = await linkSetting(t);
  armed.pairing.armOneTimeKey(() => {});
  assert.deepEqual(await answerTo(armed, 'pair_request', { pairingKey: 'ABCD-EFGH' }), closed);
  assert.deepEqual(await answerTo(armed, 'pair_request'), closed);
  const full = await linkSetting(t);
  full.pairing.window.open('page');
  for (let n = 0; n < 32; n += 1) {
    full.clock.advance(1_000);
    await answerTo(full, 'pair_request', { dashboardId: `stranger-${n}` });
  }
  assert.equal((await answerTo(full, 'pair_request')).intent_response, 'pending');
});

test('An unknown intent is refused as such, whatever else is wrong with the hello', async (t) => {
  const setting = await linkSetting(t);
  for (const changes of [{}, { dashboardId: '../etc' }, { dashboardId: '' }]) {
    assert.equal((await answerTo(setting, 'dance' as Intent, changes)).reason, 'bad_intent');
  }
});

test('An older client, which sends only a label and an id, pairs and opens a session', async (t) => {
  const setting = await linkSetting(t);
  setting.pairing.window.open('page');
  assert.equal((await answerTo(setting, 'pair_request')).intent_response, 'pending');
  const [request] = setting.pairing.pending();
  const { label, friendlyName, haAddon, labelAuto, connectBackPort } = await setting.pairing.approve(
    offloaderId,
    request?.pin ?? '',
  );
  assert.deepEqual(
    { label, friendlyName, haAddon, labelAuto, connectBackPort },
    { label: 'Home', friendlyName: '', haAddon: false, labelAuto: false, connectBackPort: 0 },
  );
  await setting.session();
});

test('A pair_status is held while the operator keeps the window open', async (t) => {
  const setting = await linkSetting(t);
  setting.pairing.window.open('page');
  await answerTo(setting, 'pair_request');
  const status = answerTo(setting, 'pair_status');
  for (let minutes = 0; minutes < 24 * 60; minutes += 4) {
    setting.pairing.window.open('page');
    setting.clock.advance(4 * 60_000);
  }
  const first = await Promise.race([status, new Promise((resolve) => setImmediate(resolve, 'waits'))]);
  assert.equal(first, 'waits');
  setting.pairing.window.close('page');
  assert.equal((await status).reason, 'no_approved_peer');
});

test('An internal error during an answer closes the connection without a frame, and is logged', async (t) => {
  const setting = await linkSetting(t);
  let key = '';
  setting.pairing.armOneTimeKey((text) => (key = text));
  setting.peers.add = () => Promise.reject(Object.assign(new Error('no space'), { code: 'ENOSPC' }));
  const [mine, theirs] = memoryTransportPair();
  setting.link.accept(theirs);
  const options = { intent: 'pair_request', hello: { ...hello, pairingKey: key } } as const;
  await assert.rejects(initiate(mine, offloaderIdentity, options), { code: 'PROTOCOL' });
  await until(() => setting.log.entries.some((entry) => entry.startsWith('error')), 'an entry in the log');
});

test('A stranger that disconnects or sends invalid data is not logged as an error', async (t) => {
  const setting = await linkSetting(t);
  for (const act of ['nonsense', 'end'] as const) {
    const [mine, theirs] = memoryTransportPair();
    setting.link.accept(theirs);
    let isClosed = false;
    mine.start({ message() {}, text() {}, closed: () => (isClosed = true) });
    if (act === 'nonsense') mine.send(Buffer.alloc(10));
    else mine.close();
    await until(() => isClosed, 'the end of the connection');
  }
  assert.deepEqual(
    setting.log.entries.filter((entry) => !entry.startsWith('debug')),
    [],
  );
});
