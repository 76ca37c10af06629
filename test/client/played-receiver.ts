/**
 * A receiver whose every frame the test sends: handshake and encryption are real, the rest is scripted.
 * It records all frames from the first on, so none can be missed.
 */
import { createOffloader, type Offloader } from '../../src/client/client.js';
import type { OffloaderSession } from '../../src/client/session.js';
import { newDashboardId, identityOf } from '../../src/peers/identity.js';
import type { FrameType } from '../../src/protocol/constants.js';
import type { FrameOf, ToReceiver } from '../../src/protocol/frames.js';
import { respond, type Responded } from '../../src/protocol/handshake.js';
import type { IntentAnswer } from '../../src/protocol/intent.js';
import { memoryTransportPair, type Transport } from '../../src/protocol/transport.js';
import { manualClock, type ManualClock } from '../async/manual-clock.js';
import { recordingLog, type RecordingLog } from '../support/recording-log.js';
import { waitFor } from '../support/wait-for.js';

export const receiver = identityOf(Buffer.alloc(32, 7));
const offloaderKeys = identityOf(Buffer.alloc(32, 9));

/** The receiver's reaction to a connection: the fields of its answer, or a close without one. */
export type Reply = readonly [word: string, reason?: string] | 'hang up';

export interface Play {
  readonly offloader: Offloader;
  readonly clock: ManualClock;
  readonly log: RecordingLog;
  /** The connections so far, in order. */
  readonly calls: readonly Responded[];
  /** Answers to the next connections; the last one is repeated. */
  replies: Reply[];
}

export function play(...replies: Reply[]): Play {
  const calls: Responded[] = [];
  const clock = manualClock();
  const log = recordingLog();
  const identity = { ...offloaderKeys, dashboardId: newDashboardId() };
  const connect = (): Promise<Transport> => {
    const [near, far] = memoryTransportPair();
    void answer(far).catch(() => far.destroy());
    return Promise.resolve(near);
  };

  async function answer(far: Transport): Promise<void> {
    const responded = await respond(far, receiver);
    calls.push(responded);
    const reply = (played.replies.length > 1 ? played.replies.shift() : played.replies[0]) ?? 'hang up';
    if (reply === 'hang up') return far.destroy();
    responded.channel.answer(answerOf(...reply));
    if (responded.intent !== 'peer_link') responded.channel.close();
  }

  const played: Play = {
    offloader: createOffloader({ identity, connect, label: 'Home', friendlyName: 'hass', clock, log }),
    clock,
    log,
    calls,
    replies,
  };
  return played;
}

function answerOf(word: string, reason?: string): IntentAnswer {
  return {
    intent_response: word,
    reason,
    esphome_version: '2026.10.0',
    auto_provision_supported: true,
    reset_build_env_supported: false,
    friendly_name: 'buildbox',
    ha_addon: false,
    requires_pairing_key: true,
  };
}

export interface PlayedSession extends Play {
  readonly session: OffloaderSession;
  readonly channel: Responded['channel'];
  readonly frames: readonly ToReceiver[];
  /** Waits for the frame of that type with that number, counted from 0. */
  frame<T extends FrameType>(type: T, index?: number): Promise<FrameOf<T>>;
  count(type: FrameType): number;
  hasEnded(): boolean;
}

/** An open session, and the receiver's end of it. */
export async function playSession(signal?: AbortSignal): Promise<PlayedSession> {
  const played = play(['ok']);
  const session = await played.offloader.openSession({ pin: receiver.pin, ...(signal && { signal }) });
  const { channel } = played.calls[0] as Responded;
  const frames: ToReceiver[] = [];
  let ended = false;
  channel.open({
    frame(parsed) {
      if (parsed.kind !== 'frame') throw new Error(`the offloader sent a frame that is ${parsed.kind}`);
      frames.push(parsed.frame);
    },
    malformed: () => channel.terminate('malformed_frame'),
    closed: () => (ended = true),
  });
  const all = <T extends FrameType>(type: T): FrameOf<T>[] =>
    frames.filter((frame) => frame.type === type) as FrameOf<T>[];
  return {
    ...played,
    session,
    channel,
    frames,
    frame: (type, index = 0) => waitFor(() => all(type)[index], { what: `frame ${index} of type ${type}` }),
    count: (type) => all(type).length,
    hasEnded: () => ended,
  };
}
