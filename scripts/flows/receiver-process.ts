/**
 * A receiver with the stand-in compiler in a process of its own, so that no call of its client is counted. The parent
 * says what it does next, and when its calls are recorded.
 */
import { setTimeout as pause } from 'node:timers/promises';

import { startRecorder, type Slice } from './recorder.js';

const recorder = startRecorder();
// Loaded once the counters run.
const { createReceiver } = await import('../../src/index.js');
const { standInEsphome } = await import('../../src/testing/index.js');

type Receiver = Awaited<ReturnType<typeof createReceiver>>;
type Limits = Parameters<Receiver['retention']['setLimits']>[0];

export type Calls = typeof calls;
export type ToReceiver = { readonly id: number; readonly name: keyof Calls; readonly argument: unknown };
export type FromReceiver = { readonly id: number; readonly result?: unknown; readonly error?: string };

/** The steps of a flow that begin with an event of the receiver. */
const stepAfter: Readonly<Record<string, string>> = {
  ...{ session: 'session open', queued: 'queued', running: 'running', completed: 'completed' },
};

const [configDir = '', holdFile = ''] = process.argv.slice(2);
/** No run of the compiler goes on while this file exists. */
const holdable = ['/bin/sh', '-c', 'while [ -e "$0" ]; do sleep 0.05; done; exec "$@"', holdFile];

/** A host brings a log of its own; the one of `src` would be entered by every flow that says anything. */
const hostLog = { debug() {}, info() {}, warn() {}, error() {} };

let receiver: Receiver | undefined;
let output = '';
let onOutput = (): void => {};

const calls = {
  async open(): Promise<{ readonly port: number; readonly pin: string }> {
    receiver = await createReceiver({
      ...{ configDir, esphome: [...holdable, ...standInEsphome], provisionVersions: false, slots: 1 },
      log: hostLog,
      // No timer of the receiver fires while the flows run.
      ...{ lockStaleMs: 600_000, connectionLimits: { handshakeTimeoutMs: 60_000 } },
    });
    recorder.step('opened');
    output = '';
    follow(receiver);
    return { port: await receiver.listen(0, '127.0.0.1'), pin: receiver.pin };
  },
  openPairingWindow: async (): Promise<void> => opened().pairing.open(),
  sweep: async (): Promise<unknown> => opened().retention.sweep(),
  setLimits: async (limits: Limits): Promise<unknown> => opened().retention.setLimits(limits),
  /** Resolves once a compiler has printed the text since the receiver was opened. */
  printed: (text: string): Promise<void> =>
    new Promise((resolve) => {
      onOutput = () => {
        if (output.includes(text)) resolve();
      };
      onOutput();
    }),
  /** Resolves once every job has its ESPHome, so that no program is being asked for its version. */
  async chosen(): Promise<void> {
    const { jobs } = opened();
    while (jobs.list().some(({ esphomeVersion }) => esphomeVersion === null)) await pause(10);
  },
  close: async (): Promise<void> => opened().close(),
  step: async (name: string): Promise<void> => recorder.step(name),
  beginRecording: (step: string): Promise<void> => recorder.begin(step),
  endRecording: (): Promise<readonly Slice[]> => recorder.end(),
};

function opened(): Receiver {
  if (receiver === undefined) throw new Error('the receiver is not open');
  return receiver;
}

/** Approves every peer, names the steps of the recording, and keeps what compilers print. */
function follow({ subscribe, pairing }: Receiver): void {
  subscribe((event) => {
    if (event.type === 'requested') {
      pairing.approve(event.request.dashboardId, event.request.pin).catch(() => process.exit(1));
      return;
    }
    const step = stepAfter[event.type === 'state' ? event.job.state : event.type];
    if (step !== undefined) recorder.step(step);
    if (event.type !== 'output') return;
    output += event.line;
    onOutput();
  });
}

process.on('message', ({ id, name, argument }: ToReceiver) => {
  const call = calls[name] as (argument: unknown) => Promise<unknown>;
  call(argument).then(
    (result) => process.send?.({ id, result } satisfies FromReceiver),
    (error: Error) => process.send?.({ id, error: error.stack ?? String(error) } satisfies FromReceiver),
  );
});
process.on('disconnect', () => process.exit());
