/** Which session and pairing events reach the connect-back schedule, and where its calls go. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { respond } from '../../src/protocol/handshake.js';
import { memoryTransportPair, type MemoryTransport } from '../../src/protocol/transport.js';
import {
  startConnectBack,
  defaultConnectBackTiming as timing,
} from '../../src/server/connect-back-schedule.js';
import {
  linkSetting,
  offloaderId,
  offloaderIdentity,
  receiverIdentity,
  settled,
  until,
  type Setting,
} from './setting.js';

/** Starts connect-backs from a setting; the test holds the far ends of the connections. */
function start({ peers, pairing, sessions, clock, log }: Setting) {
  const ends: MemoryTransport[] = [];
  const places: string[] = [];
  const stop = startConnectBack({
    ...{ identity: receiverIdentity, table: peers, pairing, sessions, clock, log, timing, port: 6123 },
    dial({ host, port }) {
      const [near, far] = memoryTransportPair();
      places.push(`${host}:${port}`);
      ends.push(far);
      return Promise.resolve(near);
    },
  });
  return { ends, places, stop };
}

const hello = { dashboardId: offloaderId, connectBackPort: 6055 };

test('A peer is called at the address of its last session and at its stated port', async (t) => {
  const setting = await linkSetting(t);
  const { ends, places, stop } = start(setting);
  await setting.approve();
  (await setting.connect('peer_link', hello)).hangUp();
  await until(() => !setting.isConnected(), 'the end of the session');
  setting.clock.advance(330_000);
  await until(() => ends.length === 1, 'the call');
  assert.deepEqual(places, ['192.0.2.10:6055']);
  const { hello: said, peerPin } = await respond(ends[0] as MemoryTransport, offloaderIdentity);
  assert.deepEqual([said.peerLinkPort, peerPin], [6123, receiverIdentity.pin]);
  await stop();
});

test('A session and a revocation each end the call at once, before the next sweep', async (t) => {
  for (const act of ['session', 'revoke'] as const) {
    const setting = await linkSetting(t);
    const { ends, stop } = start(setting);
    await setting.approve();
    (await setting.connect('peer_link', hello)).hangUp();
    await until(() => !setting.isConnected(), 'the end of the session');
    setting.clock.advance(330_000);
    await until(() => ends.length === 1, 'the call');
    const { channel } = await respond(ends[0] as MemoryTransport, offloaderIdentity);
    await settled();
    assert.equal(channel.signal.aborted, false);
    if (act === 'session') await setting.connect('peer_link', hello);
    else await setting.pairing.revoke(offloaderId);
    await until(() => channel.signal.aborted, `the end of the call by ${act}`);
    await stop();
  }
});
