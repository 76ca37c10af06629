/** Which fields of a peer's row each connection renews, and which it keeps. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { silentLog } from '../../src/log.js';
import { dashboardId } from '../../src/paths/index.js';
import { createPairingService, type PairingCaller, type PairingService } from '../../src/peers/pairing.js';
import type { Peer } from '../../src/peers/peer-row.js';
import { pinOf } from '../../src/protocol/fingerprint.js';
import type { Cleanups } from '../support/temp-dir.js';
import { freshPeers } from './fresh-peers.js';
import { manualClock } from '../async/manual-clock.js';
import { defaultOptions } from '../support/options.js';

const key = Buffer.alloc(32, 1);
const id = dashboardId('Dashboard-1');
const first: PairingCaller = {
  dashboardId: id,
  publicKey: key,
  label: 'Home',
  labelAuto: true,
  friendlyName: 'hass',
  haAddon: true,
  address: '192.0.2.10',
  connectBackPort: 6055,
};
/** A caller that sends only the required fields. */
const bare: PairingCaller = {
  ...{ dashboardId: id, publicKey: key, label: '', labelAuto: false, friendlyName: '' },
  ...{ haAddon: false, address: '', connectBackPort: 0 },
};

async function deskOf(t: Cleanups, clock = manualClock()): Promise<PairingService> {
  const pairing = createPairingService({
    ...defaultOptions,
    peers: await freshPeers(t, clock),
    ...{ clock, log: silentLog },
  });
  pairing.window.open('page');
  await pairing.pairRequest(first);
  return pairing;
}

function facts(peer: Peer | undefined): unknown[] {
  if (peer === undefined) return [];
  const { label, labelAuto, friendlyName, haAddon, address, connectBackPort } = peer;
  return [label, labelAuto, friendlyName, haAddon, address, connectBackPort];
}

test('A session renews name, address and port if present, the add-on flag always, the label never', async (t) => {
  const pairing = await deskOf(t);
  const approved = await pairing.approve(id, pinOf(key));
  assert.deepEqual(facts(approved), ['Home', true, 'hass', true, '192.0.2.10', 6055]);
  assert.deepEqual(facts(pairing.seen(bare)), ['Home', true, 'hass', false, '192.0.2.10', 6055]);
  const full = { ...first, label: 'Other', friendlyName: 'attic', address: '192.0.2.11', connectBackPort: 1 };
  assert.deepEqual(facts(pairing.seen(full)), ['Home', true, 'attic', true, '192.0.2.11', 1]);
  assert.equal(pairing.seen(bare)?.pairedAt, approved.pairedAt);
});

test('A repeated request by the same key replaces the old one, and the operator is told', async (t) => {
  const clock = manualClock({ wall: 1_000_000 });
  const pairing = await deskOf(t, clock);
  const told: string[] = [];
  pairing.subscribe(({ type }) => told.push(type));
  clock.advance(60_000);
  await pairing.pairRequest({ ...bare, label: 'Again' });
  const [after, ...more] = pairing.pending();
  assert.deepEqual(
    [after?.label, after?.friendlyName, after?.haAddon, after?.address, after?.connectBackPort],
    ['Again', '', false, '', 0],
  );
  assert.equal(after?.pairedAt, 1_060);
  assert.deepEqual([told, more], [['requested'], []]);
});

test('The time of a pairing is the time of its request, not of its approval', async (t) => {
  const clock = manualClock({ wall: 1_000_000 });
  const pairing = await deskOf(t, clock);
  clock.advance(60_000);
  const peer = await pairing.approve(id, pinOf(key));
  assert.equal(peer.pairedAt, 1_000);
});
