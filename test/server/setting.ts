/**
 * A whole peer server in memory with fakes below it, and clients that speak the real protocol: handshake,
 * encryption and frames. A client records every frame from the first on, so none can be missed.
 */
import assert from 'node:assert/strict';

import { initiate } from '../../src/protocol/handshake.js';
import type { FrameOf, ToOffloader } from '../../src/protocol/frames.js';
import type { IntentMessage, IntentAnswer } from '../../src/protocol/intent.js';
import { createSessions, type Sessions } from '../../src/server/sessions.js';
import { createPeerServer, type PeerServer, type PeerServerOptions } from '../../src/server/peer-server.js';
import { memoryTransportPair, type MemoryTransport } from '../../src/protocol/transport.js';
import type { FrameType, Intent } from '../../src/protocol/constants.js';
import { dashboardId, type DashboardId } from '../../src/paths/index.js';
import { identityOf, type Identity } from '../../src/peers/identity.js';
import { createPairingService, type PairingService } from '../../src/peers/pairing.js';
import type { PeerTable } from '../../src/peers/peers.js';
import { freshPeers } from '../peers/fresh-peers.js';
import { manualClock, type ManualClock } from '../async/manual-clock.js';
import { recordingLog, type RecordingLog } from '../support/recording-log.js';
import type { Cleanups } from '../support/temp-dir.js';
import { fakeIntakes, type FakeIntakes } from './fake-intakes.js';
import { fakeJobs, type FakeJobs } from './fake-jobs.js';
import { defaultOptions } from '../support/options.js';

export const receiverIdentity = identityOf(Buffer.alloc(32, 7));
const laneIdentity = identityOf(Buffer.alloc(32, 8));
export const offloaderIdentity = identityOf(Buffer.alloc(32, 9));
export const offloaderId = dashboardId('k3Jx0Qm7vXb2Zr8TtLw5Yc1NsEaUdPfG');

export interface Client {
  readonly answer: IntentAnswer;
  readonly frames: readonly ToOffloader[];
  readonly transport: MemoryTransport;
  isClosed(): boolean;
  /** Sends any object, valid or not. */
  send(frame: object): void;
  /** Waits for the next frame of that type, and keeps the frames before it for other calls. */
  next<T extends FrameType>(type: T): Promise<FrameOf<T>>;
  /** The frames of that type so far. */
  all<T extends FrameType>(type: T): readonly FrameOf<T>[];
  hangUp(): void;
  /** Stops reading, like a machine that has vanished. */
  freeze(): void;
}

export interface Setting {
  readonly link: PeerServer;
  readonly sessions: Sessions;
  readonly pairing: PairingService;
  readonly peers: PeerTable;
  readonly jobs: FakeJobs;
  readonly intakes: FakeIntakes;
  readonly clock: ManualClock;
  readonly log: RecordingLog;
  /** Approves a peer at once, by default the usual one. */
  approve(id?: DashboardId, identity?: Identity): Promise<void>;
  /** Connects with any intent and waits for the answer. */
  connect(intent: Intent, hello?: Partial<IntentMessage>, identity?: Identity): Promise<Client>;
  /** Approves if necessary, and opens the session of the usual peer. */
  session(): Promise<Client>;
  /** Whether the usual peer has a session. */
  isConnected(): boolean;
}

export async function linkSetting(t: Cleanups, changes: Partial<PeerServerOptions> = {}): Promise<Setting> {
  const clock = manualClock();
  const log = recordingLog();
  const peers = await freshPeers(t, clock);
  const pairing = createPairingService({ ...defaultOptions, peers, clock, log });
  const [jobs, intakes] = [fakeJobs(), fakeIntakes()];
  const sessions = createSessions(clock, log);
  const link = createPeerServer({
    ...defaultOptions,
    sessions,
    lanes: [
      { number: 1, identity: receiverIdentity, friendlyName: 'buildbox' },
      { number: 2, identity: laneIdentity, friendlyName: 'buildbox 2' },
    ],
    pairing,
    jobs,
    openIntake: intakes.open,
    isPlaceSafe: () => Promise.resolve(true),
    about: { haAddon: false, pairingByKey: false },
    esphomeVersion: () => Promise.resolve('2026.10.0'),
    clock,
    log,
    ...changes,
  });
  t.after(() => link.close());

  const setting: Setting = {
    ...{ link, sessions, pairing, peers, jobs, intakes, clock, log },
    async approve(id = offloaderId, identity = offloaderIdentity) {
      const nobody = { label: 'Home', labelAuto: false, friendlyName: 'hass', haAddon: false };
      const place = { pairedAt: 0, address: '', connectBackPort: 0 };
      await peers.add({ dashboardId: id, publicKey: identity.publicKey, ...nobody, ...place });
    },
    connect: (intent, hello, identity = offloaderIdentity) => connect(link, intent, hello, identity),
    isConnected: () => sessions.isConnected(offloaderId),
    async session() {
      if (!peers.get(offloaderId)) await setting.approve();
      const client = await setting.connect('peer_link', { dashboardId: offloaderId });
      assert.equal(client.answer.intent_response, 'ok');
      await client.next('queue_status');
      return client;
    },
  };
  return setting;
}

async function connect(
  link: PeerServer,
  intent: Intent,
  hello: Partial<IntentMessage> = {},
  identity: Identity,
): Promise<Client> {
  const [transport, theirs] = memoryTransportPair('192.0.2.10');
  link.accept(theirs);
  const { answer, channel } = await initiate(transport, identity, { intent, hello });
  const frames: ToOffloader[] = [];
  const asked = new Map<FrameType, number>();
  let closed = false;
  channel.open({
    frame: (parsed) => {
      assert.equal(parsed.kind, 'frame');
      if (parsed.kind === 'frame') frames.push(parsed.frame);
    },
    malformed: () => assert.fail('the receiver sent a malformed frame'),
    closed: () => (closed = true),
  });
  const all = <T extends FrameType>(type: T): FrameOf<T>[] =>
    frames.filter((frame) => frame.type === type) as FrameOf<T>[];
  return {
    answer,
    frames,
    transport,
    isClosed: () => closed,
    send: (frame) => void channel.send(frame as never),
    async next(type) {
      const index = asked.get(type) ?? 0;
      asked.set(type, index + 1);
      await until(() => all(type).length > index, `a frame of type ${type}`);
      return all(type)[index] as FrameOf<typeof type>;
    },
    all,
    hangUp: () => channel.close(),
    freeze: () => transport.pause(),
  };
}

/** Waits tick by tick of the event loop, in which messages in memory travel, until the condition holds. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 5_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`${what} did not happen`);
    await turn();
  }
}

/** Waits until all messages in memory have arrived. */
export async function settled(): Promise<void> {
  for (let n = 0; n < 30; n += 1) await turn();
}

function turn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
