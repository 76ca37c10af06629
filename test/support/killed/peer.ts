/** One dashboard of a repeatedly killed receiver. It reconnects like a real one, with the same ids. */
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { isReceiverError, messageOf } from '../../../src/errors.js';
import {
  createOffloader,
  dial,
  loadOffloaderIdentity,
  makeBundle,
  type OffloaderIdentity,
  type OffloaderSession,
} from '../../../src/koa/offloader.js';
import { programOf } from '../../../src/testing/stand-in-build.js';
import { readNode } from '../../../src/testing/stand-in-node.js';
import { noteDownload, noteEnd, type Job } from './ledger.js';
import type { Chance } from './chance.js';

/** The events of a peer, for tests that wait for the right moment to kill. */
export type Moment = 'submit' | 'compile' | 'pack' | 'download';

const host = '127.0.0.1';
/** A receiver keeps 50 results of a peer, and 50 jobs without a result. */
const remembered = 20;

export interface Peer {
  readonly jobs: readonly Job[];
  /** Connects, resumes unfinished jobs and downloads missing results. Resolves when connected. */
  connect(server: { readonly port: number; readonly pin: string }): Promise<void>;
  /** Starts a new job for the device. */
  submit(device: string): Promise<void>;
  /** Cancels one of the running jobs. */
  cancelOne(): void;
  /** Resolves when no job is running, which includes the time without a session. Throws the first violation. */
  settled(): Promise<void>;
  close(): Promise<void>;
}

export async function createPeer(
  home: string,
  chance: Chance,
  onMoment: (moment: Moment) => void,
): Promise<Peer> {
  const identity: OffloaderIdentity = await loadOffloaderIdentity(home);
  const jobs: Job[] = [];
  const running = new Set<Promise<void>>();
  const faults: unknown[] = [];
  let session: OffloaderSession | null = null;

  function lead(job: Job, work: Promise<void>): void {
    const led = work
      .catch((cause: unknown) => {
        const what = `${job.id} (${job.history.join(', ')}): ${messageOf(cause)}`;
        faults.push(new Error(what, { cause }));
      })
      .finally(() => running.delete(led));
    running.add(led);
  }

  /** Follows a job until its end and its download, or until the session is lost. */
  async function follow(job: Job, current: OffloaderSession): Promise<void> {
    if (job.end === null) {
      onMoment('submit');
      const result = await unlessLost(current, () =>
        current.build({
          ...{ file: `${job.device}.yaml`, bundle: job.bundle, jobId: job.id },
          onAccepted() {
            job.isAccepted = true;
            job.history.push('accepted');
          },
          onState: (state) => void job.history.push(state),
          onOutput(line) {
            if (line.includes('stand-in: sleeping')) onMoment('compile');
            if (line.includes('LINK program')) onMoment('pack');
          },
        }),
      );
      if (result === null) return;
      noteEnd(job, result);
    }
    if (job.end !== 'completed' || job.isFetched) return;
    onMoment('download');
    job.history.push('download');
    const artifacts = await unlessLost(current, () => current.downloadArtifacts(job.id));
    if (artifacts !== null) await noteDownload(job, artifacts, join(home, `out-${job.id}`));
  }

  async function newJob(device: string): Promise<Job> {
    const id = randomBytes(6).toString('hex');
    const size = chance.below(200_000);
    const configDir = join(home, id);
    await mkdir(configDir);
    const file = join(configDir, `${device}.yaml`);
    await writeFile(
      file,
      `# stand-in: sleep=${chance.below(300)} size=${size}\n# ${randomBytes(chance.below(400_000)).toString('hex')}\n` +
        `esphome:\n  name: ${device}\n  friendly_name: ${id}\nhost:\n`,
    );
    const node = readNode(file);
    if (typeof node === 'string') throw new Error(node);
    const { bytes: bundle } = await makeBundle({ configDir, file: `${device}.yaml` });
    const program = programOf(device, node.hash, size);
    return {
      ...{ id, device, bundle, program },
      isAccepted: false,
      end: null,
      isFetched: false,
      history: [],
    };
  }

  return {
    jobs,
    async connect({ port, pin }) {
      const offloader = createOffloader({ identity, connect: () => dial({ host, port }), label: 'killed' });
      if ((await offloader.requestPairing({ pin })) === 'pending') await offloader.waitForApproval({ pin });
      const current = await offloader.openSession({ pin });
      session = current;
      // In the order of creation: a later job replaces an earlier one of the same device.
      for (const job of jobs) if (job.end === null || isUnfetched(job)) lead(job, follow(job, current));
      // A known end is repeated on request, as long as the job is kept.
      const ended = chance.oneOf(jobs.filter(({ end }) => end !== null).slice(-remembered));
      if (ended !== undefined && chance.below(3) === 0) lead(ended, askAgain(ended, current));
    },
    async submit(device) {
      const job = await newJob(device);
      jobs.push(job);
      if (session) lead(job, follow(job, session));
    },
    cancelOne() {
      const job = chance.oneOf(jobs.filter(({ end, isAccepted }) => end === null && isAccepted));
      if (job) session?.cancel(job.id);
    },
    async settled() {
      while (running.size > 0) await Promise.all(running);
      const [fault] = faults;
      if (fault !== undefined) throw fault;
    },
    async close() {
      await session?.close();
    },
  };

  async function askAgain(job: Job, current: OffloaderSession): Promise<void> {
    const request = { file: `${job.device}.yaml`, bundle: job.bundle, jobId: job.id };
    job.history.push('asked again');
    const result = await unlessLost(current, () => current.build(request));
    if (result !== null) noteEnd(job, result);
  }
}

function isUnfetched({ end, isFetched }: Job): boolean {
  return end === 'completed' && !isFetched;
}

/** Null if the receiver was killed meanwhile. */
async function unlessLost<T>(session: OffloaderSession, act: () => Promise<T>): Promise<T | null> {
  let isLost = false;
  void session.ended.then(() => (isLost = true));
  try {
    return await act();
  } catch (error) {
    // The end of the job and the failure have the same cause.
    await Promise.resolve();
    // Or the build is cancelled before its bundle is sent again, and continues at the receiver.
    if (isLost || isReceiverError(error, 'CANCELLED')) return null;
    throw error;
  }
}
