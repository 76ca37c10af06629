/** What every flow needs: a receiver in a process of its own, a client that is paired with it, and bundles to build. */
import { fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { createOffloader, dial, loadOffloaderIdentity, makeBundle } from '../../src/koa/offloader.js';
import { tempDir, type Cleanups } from '../../test/support/temp-dir.js';
import type { Calls, FromReceiver, ToReceiver } from './receiver-process.js';
import type { Slice } from './recorder.js';

type Session = Awaited<ReturnType<ReturnType<typeof createOffloader>['openSession']>>;
type Call = <Name extends keyof Calls>(
  name: Name,
  ...argument: Parameters<Calls[Name]>
) => Promise<Awaited<ReturnType<Calls[Name]>>>;

export interface Stage {
  /** Has the receiver's process do something. */
  readonly call: Call;
  /** Opens the receiver on the directory, and where the client looks for it. */
  open(): Promise<void>;
  pair(): Promise<void>;
  openSession(): Promise<Session>;
  /** Builds `<name>.yaml` with the stand-in and downloads the artifacts. */
  build(session: Session, name: string): Promise<void>;
  /** Starts a build that is not waited for, and will not end: its compiler waits for a file that never comes. */
  startEndless(session: Session, name: string): Promise<void>;
  /** No compiler goes on, not even to tell its version, until the returned function is called. */
  holdCompiler(): Promise<() => Promise<void>>;
  /** What the receiver calls while `work` runs, and until it is idle afterwards. */
  record<T>(step: string, work: () => Promise<T>): Promise<Recorded<T>>;
}

export interface Recorded<T> {
  readonly result: T;
  readonly slices: readonly Slice[];
}

const host = '127.0.0.1';
/** Long enough that two messages arrive in two turns of the receiver's event loop. Only the order depends on it. */
const pauseMs = 100;
const closeMs = 5_000;

/** Ends with `t`, and its files with it. */
export async function openStage(t: Cleanups): Promise<Stage> {
  const base = await tempDir(t);
  const configDir = join(base, 'receiver');
  await mkdir(configDir);
  const holdFile = join(base, 'hold');
  const call = startReceiverProcess(t, configDir, holdFile);
  const identity = await loadOffloaderIdentity(join(base, 'client'));
  let [port, pin] = [0, ''];
  const offloader = createOffloader({ identity, connect: () => dial({ host, port }), label: 'flows' });

  async function bundleOf(name: string, knobs: string): Promise<{ file: string; bundle: Buffer }> {
    const directory = join(base, name);
    const file = `${name}.yaml`;
    await mkdir(directory);
    await writeFile(join(directory, file), `# stand-in: ${knobs}\nesphome:\n  name: ${name}\nhost:\n`);
    return { file, bundle: (await makeBundle({ configDir: directory, file })).bytes };
  }

  async function* slowly(bundle: Buffer): AsyncGenerator<Buffer> {
    await pause(pauseMs);
    await call('step', 'upload');
    yield bundle;
  }

  return {
    call,
    async open() {
      ({ port, pin } = await call('open'));
    },
    async pair() {
      await call('openPairingWindow');
      if ((await offloader.requestPairing({ pin })) === 'pending') await offloader.waitForApproval({ pin });
    },
    openSession: () => offloader.openSession({ pin }),
    async build(session, name) {
      const { file, bundle } = await bundleOf(name, '');
      const sha256 = createHash('sha256').update(bundle).digest('hex');
      const announced = { bytes: slowly(bundle), size: bundle.length, sha256 };
      const { jobId, status, errorMessage } = await session.build({ file, bundle: announced });
      if (status !== 'completed') throw new Error(`the build of ${name} ended as ${status}: ${errorMessage}`);
      await call('step', 'download');
      await session.downloadArtifacts(jobId);
    },
    async startEndless(session, name) {
      const bundle = await bundleOf(name, `wait=${join(base, 'never')}`);
      await new Promise<void>((resolve, reject) => {
        // It ends with the session.
        session.build({ ...bundle, onState: () => resolve() }).catch(reject);
      });
      await call('chosen');
    },
    async holdCompiler() {
      await writeFile(holdFile, '');
      return () => rm(holdFile);
    },
    async record(step, work) {
      await call('beginRecording', step);
      const result = await work();
      return { result, slices: await call('endRecording') };
    },
  };
}

function startReceiverProcess(t: Cleanups, configDir: string, holdFile: string): Call {
  const program = fileURLToPath(new URL('receiver-process.ts', import.meta.url));
  const child = fork(program, [configDir, holdFile], { serialization: 'advanced' });
  const ended = once(child, 'exit');
  const waiting = new Map<number, (answer: FromReceiver) => void>();
  let last = 0;

  child.on('message', (answer: FromReceiver) => {
    waiting.get(answer.id)?.(answer);
    waiting.delete(answer.id);
  });
  child.once('exit', () => {
    for (const [id, answer] of waiting) answer({ id, error: 'the process of the receiver ended' });
  });

  const call = async (name: keyof Calls, argument?: unknown): Promise<unknown> => {
    last += 1;
    const id = last;
    const { result, error } = await new Promise<FromReceiver>((resolve) => {
      waiting.set(id, resolve);
      child.send({ id, name, argument } satisfies ToReceiver);
    });
    if (error !== undefined) throw new Error(`${name}: ${error}`);
    return result;
  };
  t.after(async () => {
    if (child.connected) {
      await Promise.race([call('close').catch(() => {}), pause(closeMs, undefined, { ref: false })]);
    }
    child.kill('SIGKILL');
    await ended;
  });
  return call as Call;
}
