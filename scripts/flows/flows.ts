/**
 * The flows that are measured, as one story of a receiver, and how many files of `src` each may enter.
 *
 * The receiver is mounted as a host would: it has a log of the host's, and the host follows its events. Each flow ends when
 * the receiver is idle again, so what a build leaves to do (measuring the device) counts, and no timer does.
 */
import type { Slice } from './recorder.js';
import { openStage, type Stage } from './stage.js';
import type { Cleanups } from '../../test/support/temp-dir.js';

export interface Flow {
  /** What happens in it, for the table. */
  readonly what: string;
  /** Most files of `src` that it may enter; null for no limit. */
  readonly goal: number | null;
}

export const flows = {
  connect: { what: 'socket accepted → session of a paired peer open', goal: null },
  build: { what: 'bundle announced on an open session → artifacts downloaded', goal: 100 },
  sweep: { what: 'sweep of three devices and the tools, nothing over a limit', goal: 27 },
  remove: { what: 'limits lowered → devices and results removed', goal: null },
  close: { what: 'close with a session open, one job running and one waiting', goal: null },
  restart: { what: 'opened again on ended, interrupted and waiting jobs → receiver returned', goal: 65 },
  resume: { what: 'receiver returned → listening, tidied up, interrupted job compiling again', goal: null },
} as const satisfies Record<string, Flow>;

export type FlowName = keyof typeof flows;
export type Recordings = Partial<Record<FlowName, readonly Slice[]>>;

export const flowNames = Object.keys(flows) as readonly FlowName[];

const mebibyte = 1_048_576;
const roomyLimits = {
  ...{ maxBuildBytes: 1024 * mebibyte, maxBuildBytesPerPeer: 512 * mebibyte },
  ...{ maxResultBytes: 1024 * mebibyte, maxToolBytes: 1024 * mebibyte },
};

/** Plays the story to its end, or as far as the `wanted` flows need it. */
export async function recordFlows(t: Cleanups, wanted: readonly FlowName[]): Promise<Recordings> {
  const recordings: Recordings = {};
  const stage = await openStage(t);
  await stage.open();
  await stage.pair();
  for (const chapter of [connectAndBuild, sweepAndRemove, closeAndRestart]) {
    if (wanted.every((name) => name in recordings)) break;
    Object.assign(recordings, await chapter(stage));
  }
  return recordings;
}

async function connectAndBuild({ record, openSession, build }: Stage): Promise<Recordings> {
  // The first session after the approval reads the peers file again.
  await (await openSession()).close();
  const connected = await record('socket accepted', openSession);
  const session = connected.result;
  const built = await record('announced', () => build(session, 'kitchen'));
  await session.close();
  return { connect: connected.slices, build: built.slices };
}

async function sweepAndRemove({ record, openSession, build, call }: Stage): Promise<Recordings> {
  const session = await openSession();
  await build(session, 'cellar');
  await build(session, 'attic');
  await session.close();
  // Measures what the sweep then knows.
  await call('setLimits', roomyLimits);
  const sweep = await record('sweep', () => call('sweep'));
  const remove = await record('remove', () => call('setLimits', { maxBuildBytes: 1, maxResultBytes: 1 }));
  await call('setLimits', roomyLimits);
  return { sweep: sweep.slices, remove: remove.slices };
}

async function closeAndRestart(stage: Stage): Promise<Recordings> {
  const { record, openSession, build, startEndless, holdCompiler, call, open } = stage;
  const session = await openSession();
  await build(session, 'garage');
  await startEndless(session, 'garden');
  await call('printed', 'stand-in: waiting');
  await startEndless(session, 'gate');
  const close = await record('close', () => call('close'));
  const letGo = await holdCompiler();
  const opened = await record('open', async () => {
    await open();
    await letGo();
    await call('printed', 'stand-in: waiting');
  });
  const isOpening = ({ step }: Slice): boolean => step === 'open';
  return {
    close: close.slices,
    restart: opened.slices.filter(isOpening),
    resume: opened.slices.filter((slice) => !isOpening(slice)),
  };
}
