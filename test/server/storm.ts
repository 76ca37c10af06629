/**
 * Any frame in any state of a session: nothing throws, nothing grows, and each frame ends the session or not, as
 * the protocol says.
 */
import assert from 'node:assert/strict';

import { encodeIntentMessage, encodeIntent } from '../../src/protocol/intent.js';
import { createInitiator, type Cipher } from '../../src/protocol/noise.js';
import { memoryTransportPair, type MemoryTransport } from '../../src/protocol/transport.js';
import type { Chance } from '../support/killed/chance.js';
import { chunkFrames, headerFrame } from './bundle-frames.js';
import { linkSetting, offloaderId, offloaderIdentity, settled, until, type Setting } from './setting.js';
import { anyFrame, verdictOf, type Verdict } from './storm-frames.js';

const states = ['idle', 'announced', 'half', 'complete', 'downloading'] as const;
const bundle = Buffer.alloc(40_000, 'b');
const mostFrames = 100;
/** Sessions per receiver, whose fakes remember every job. */
const sessionsPerLink = 200;

interface RawClient {
  readonly transport: MemoryTransport;
  /** The received frames, decrypted. */
  readonly received: Record<string, unknown>[];
  isClosed(): boolean;
  send(plaintext: Buffer): void;
}

/** Sends this many frames. Returns the count of each verdict. */
export async function storm(chance: Chance, frames: number): Promise<Record<Verdict, number>> {
  const counts: Record<Verdict, number> = { stays: 0, ends: 0, leaves: 0, either: 0 };
  for (let sent = 0; sent < frames;) {
    const cleanups: (() => Promise<void> | void)[] = [];
    const setting = await linkSetting({ after: (cleanup) => cleanups.push(cleanup) });
    await setting.approve();
    for (let n = 0; n < sessionsPerLink && sent < frames; n += 1) {
      setting.clock.advance(60_000);
      if (n % 10 === 0) await strangersTurn(setting, chance);
      sent += await oneSession(setting, chance, counts);
      setting.jobs.forget();
    }
    assert.deepEqual(
      setting.log.entries.filter((entry) => entry.startsWith('error')),
      [],
    );
    for (const cleanup of cleanups.toReversed()) await cleanup();
  }
  return counts;
}

async function oneSession(
  setting: Setting,
  chance: Chance,
  counts: Record<Verdict, number>,
): Promise<number> {
  const client = await connect(setting);
  const state = chance.oneOf(states) ?? 'idle';
  await prepare(setting, client, state);
  const sent: string[] = [];
  let verdict: Verdict = 'stays';
  let mayHaveEnded = false;
  const wanted = 1 + chance.below(mostFrames);
  while (!isEnd(verdict) && sent.length < wanted) {
    // A handshake costs as much as hundreds of frames, so most sessions get many before the last one.
    let frame = anyFrame(chance);
    while (sent.length + 1 < wanted && isEnd(verdictOf(frame))) frame = anyFrame(chance);
    verdict = verdictOf(frame);
    counts[verdict] += 1;
    mayHaveEnded ||= verdict === 'either';
    sent.push(frame.toString('latin1'));
    client.send(frame);
  }
  client.send(Buffer.from('{"type":"ping","nonce":"the last"}'));
  const isAnswered = (): boolean =>
    client.received.some(({ type, nonce }) => type === 'pong' && nonce === 'the last');
  const what = `${state}: ${JSON.stringify(sent.slice(-3))} (${verdict})`;
  await until(() => client.isClosed() || isAnswered(), `an end or an answer to ${what}`);
  if (client.isClosed()) {
    assert.ok(mayHaveEnded || verdict !== 'stays', `the session ended: ${what}`);
    assertEnd(client, verdict, what, mayHaveEnded);
  } else {
    assert.ok(!isEnd(verdict), `the session goes on: ${what}`);
  }
  client.transport.destroy();
  await until(() => !setting.isConnected(), 'the end of the session');
  await settled();
  const open = setting.intakes.all.filter(({ ending }) => ending === 'open');
  assert.deepEqual(open, [], `a bundle is left open: ${what}`);
  return sent.length;
}

function isEnd(verdict: Verdict): boolean {
  return verdict === 'ends' || verdict === 'leaves';
}

/** The last frame is the reason, and nothing follows it. */
function assertEnd(client: RawClient, verdict: Verdict, what: string, mayHaveEnded: boolean): void {
  const last = client.received.at(-1);
  const said = client.received.findIndex(({ type }) => type === 'terminate');
  assert.ok(said === -1 || said === client.received.length - 1, `something follows a terminate: ${what}`);
  if (verdict === 'leaves' && !mayHaveEnded) assert.equal(said, -1, `terminate is answered: ${what}`);
  else if (said >= 0 || (verdict === 'ends' && !mayHaveEnded)) {
    assert.equal(last?.['reason'], 'malformed_frame', what);
  }
}

async function prepare({ jobs }: Setting, client: RawClient, state: (typeof states)[number]): Promise<void> {
  const frames = [headerFrame(bundle), ...chunkFrames(bundle)].map((frame) =>
    Buffer.from(JSON.stringify(frame)),
  );
  const count = { idle: 0, announced: 1, half: 2, complete: 3, downloading: 3 }[state];
  for (const frame of frames.slice(0, count)) client.send(frame);
  if (state !== 'downloading') return;
  await until(() => jobs.records().at(-1)?.state === 'queued', 'the job');
  jobs.artifacts = bundle;
  jobs.move({ state: 'completed' });
  client.send(
    Buffer.from(JSON.stringify({ type: 'download_artifacts', job_id: headerFrame(bundle)['job_id'] })),
  );
}

/** Anything before the proof of a key closes the connection without an answer. */
async function strangersTurn({ link }: Setting, chance: Chance): Promise<void> {
  const [ours, theirs] = memoryTransportPair('192.0.2.66');
  let closed = false;
  const received: Buffer[] = [];
  link.accept(theirs);
  ours.start({ message: (data) => received.push(data), text() {}, closed: () => (closed = true) });
  const noise = createInitiator({ staticKey: offloaderIdentity });
  const step = chance.below(3);
  // Any 32 bytes can be a key, and the data after them is not encrypted yet.
  ours.send(step === 0 ? anyFrame(chance) : noise.write(encodeIntent('preview')));
  await until(() => closed || received.length === 1, 'the second message');
  if (step === 2) ours.sendText();
  else ours.send(anyFrame(chance));
  await until(() => closed, 'the end of the handshake');
  assert.ok(received.length <= 1);
}

async function connect({ link }: Setting): Promise<RawClient> {
  const [transport, theirs] = memoryTransportPair('192.0.2.10');
  link.accept(theirs);
  const received: Record<string, unknown>[] = [];
  let [closed, raw]: [boolean, Buffer | undefined] = [false, undefined];
  let ciphers: { outgoing: Cipher; incoming: Cipher } | undefined;
  transport.start({
    message(data) {
      if (ciphers) received.push(JSON.parse(ciphers.incoming.decrypt(data).toString('utf8')) as never);
      else raw = data;
    },
    text: () => assert.fail('a text message'),
    closed: () => (closed = true),
  });
  const noise = createInitiator({ staticKey: offloaderIdentity });
  transport.send(noise.write(encodeIntent('peer_link')));
  await until(() => raw !== undefined, 'the second message');
  noise.read(raw ?? Buffer.alloc(0));
  transport.send(noise.write(encodeIntentMessage({ dashboardId: offloaderId })));
  const { outgoing, incoming } = noise.split();
  ciphers = { outgoing, incoming };
  await until(() => received.length > 0, 'the answer');
  assert.equal(received[0]?.['intent_response'], 'ok');
  return {
    transport,
    received,
    isClosed: () => closed,
    send: (text) => transport.send(outgoing.encrypt(text)),
  };
}
