/** The client's side of the clock: every time is taken here, in one process, by what arrives on the wire. */
import { createOffloader, dial, loadOffloaderIdentity, type Transport } from '../../src/koa/offloader.js';
import { firstLine, lastLine } from './compiler.js';
import { announce, configuration } from './inputs.js';
import type { ServerAddress } from './server-process.js';

export const host = '127.0.0.1';

/** Larger than any frame but a chunk. */
const chunkMessageBytes = 32 * 1024;

export interface BuildTimes {
  readonly jobId: string;
  /** From the acknowledgement of the last chunk until the compiler's first line is here; NaN when there is none. */
  readonly startMs: number;
  /** When the compiler said that it ends. */
  readonly compilerEndedAt: number;
  /** From the announcement to the end of the job. */
  readonly totalMs: number;
}

export interface RunningBuild {
  /** Milliseconds from the announcement until the receiver has the bundle as it wants it. */
  readonly uploaded: Promise<number>;
  readonly done: Promise<BuildTimes>;
}

export interface DownloadTimes {
  readonly totalMs: number;
  /** From the request until the first chunk is here. */
  readonly firstChunkMs: number;
  readonly endedAt: number;
}

export interface Client {
  build(bundle: Buffer): RunningBuild;
  download(jobId: string): Promise<DownloadTimes>;
  close(): Promise<void>;
}

/** A paired client with an open session; `directory` is its own. */
export async function connectClient(server: ServerAddress, directory: string): Promise<Client> {
  let onChunk = (): void => {};
  let onMessage = (): void => {};
  const identity = await loadOffloaderIdentity(directory);
  const connect = async (): Promise<Transport> =>
    watched(await dial({ host, port: server.port }), (bytes) => {
      onMessage();
      if (bytes > chunkMessageBytes) onChunk();
    });
  const { pin, pairingKey } = server;
  const offloader = createOffloader({ identity, connect, label: 'bench' });
  const answer = await offloader.requestPairing({ pin, pairingKey });
  if (answer !== 'approved') throw new Error(`the pairing is ${answer}`);
  const session = await offloader.openSession({ pin });

  return {
    build(bundle) {
      let [acknowledgedAt, compilerAt, compilerEndedAt] = [NaN, NaN, NaN];
      const announced = announce(bundle, () => {
        // The first word of the receiver after the last chunk.
        onMessage = () => {
          acknowledgedAt = performance.now();
          onMessage = () => {};
        };
      });
      const start = performance.now();
      let arrived: (ms: number) => void = () => {};
      const uploaded = new Promise<number>((resolve) => (arrived = resolve));
      const build = session.build({
        file: configuration,
        bundle: announced,
        onState: () => arrived(performance.now() - start),
        onOutput(line) {
          if (line.startsWith(firstLine)) compilerAt = performance.now();
          if (line.startsWith(lastLine)) compilerEndedAt = performance.now();
        },
      });
      const done = build.then(({ jobId, status, errorMessage }) => {
        const totalMs = performance.now() - start;
        if (status !== 'completed' && !server.isSink) throw new Error(`the build ${status}: ${errorMessage}`);
        return { jobId, startMs: compilerAt - acknowledgedAt, compilerEndedAt, totalMs };
      });
      return { uploaded, done };
    },
    async download(jobId) {
      let firstAt = NaN;
      onChunk = () => {
        firstAt = performance.now();
        onChunk = () => {};
      };
      const start = performance.now();
      await session.downloadArtifacts(jobId);
      const endedAt = performance.now();
      return { totalMs: endedAt - start, firstChunkMs: firstAt - start, endedAt };
    },
    close: () => session.close(),
  };
}

function watched(transport: Transport, onMessage: (bytes: number) => void): Transport {
  return {
    ...transport,
    get bufferedBytes() {
      return transport.bufferedBytes;
    },
    start: (events) =>
      transport.start({
        ...events,
        message(data) {
          onMessage(data.length);
          events.message(data);
        },
      }),
  };
}
