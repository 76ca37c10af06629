/** One dashboard of a receiver that is killed again and again. It comes back as the real one does, under the same ids. */
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

/** What happens to a peer, for whoever waits for the right moment to strike. */
export type Moment = 'submit' | 'compile' | 'pack' | 'download';

const host = '127.0.0.1';
/** A receiver keeps 50 results of a peer, and as many jobs without one. */
const remembered = 20;

export interface Peer {
  readonly jobs: readonly Job[];
  /** Connects, takes up what has not ended and fetches what was not fetched. Resolves when connected. */
  connect(server: { readonly port: number; readonly pin: string }): Promise<void>;
  /** Begins a new job for that device. */
  submit(device: string): Promise<void>;
  /** Asks for the end of one of the jobs that are under way. */
  cancelOne(): void;
  /** Resolves when nothing is under way, and throws what was wrong. Without a session nothing is. */
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

  /** Follows a job until its end is told and its program is here, or the session is lost. */
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
      // In the order in which they were made: a later one replaces an earlier one of the same device.
      for (const job of jobs) if (job.end === null || isUnfetched(job)) lead(job, follow(job, current));
      // An end that was told is told again to whoever asks, as long as the job is kept.
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

/** Null when the receiver was killed meanwhile. */
async function unlessLost<T>(session: OffloaderSession, act: () => Promise<T>): Promise<T | null> {
  let isLost = false;
  void session.ended.then(() => (isLost = true));
  try {
    return await act();
  } catch (error) {
    // Its end and the failure come from the same event.
    await Promise.resolve();
    // Or the build is taken back before its bundle is sent again, and goes on over there.
    if (isLost || isReceiverError(error, 'CANCELLED')) return null;
    throw error;
  }
}
