/** Intakes that unpack nothing and record how each one ended, so that a leaked one shows. */
import { ReceiverError } from '../../src/errors.js';
import type { BundleIntake } from '../../src/bundles/intake.js';
import type { StagedBundle } from '../../src/bundles/store.js';
import type { OpenIntake } from '../../src/server/ports.js';

export interface FakeIntake {
  readonly file: string;
  readonly bytes: Buffer[];
  /** What the upload hears when there is no more room. */
  readonly onRefused: Parameters<OpenIntake>[1];
  ending: 'open' | 'finished' | 'aborted';
}

export interface FakeIntakes {
  readonly open: OpenIntake;
  readonly all: readonly FakeIntake[];
  /** While true, `write` tells its caller to wait. Setting it to false drains. */
  full: boolean;
  /** While true, `abort` does not return, as on a slow disk. */
  stuck: boolean;
  /** The error that `finish` throws, if any. */
  fault: string | undefined;
}

export function fakeIntakes(): FakeIntakes {
  const all: FakeIntake[] = [];
  let full = false;
  let waiting: (() => void)[] = [];
  let stuck = false;
  const aborts: (() => void)[] = [];
  const drain = (): void => {
    for (const resolve of waiting) resolve();
    waiting = [];
  };
  const intakes: FakeIntakes = {
    all,
    fault: undefined,
    get stuck() {
      return stuck;
    },
    set stuck(value) {
      stuck = value;
      if (!stuck) for (const resolve of aborts.splice(0)) resolve();
    },
    get full() {
      return full;
    },
    set full(value) {
      full = value;
      if (!full) drain();
    },
    open({ file }, onRefused) {
      const intake: FakeIntake = { file, bytes: [], ending: 'open', onRefused };
      all.push(intake);
      return {
        write(bytes) {
          intake.bytes.push(bytes);
          return !full;
        },
        drain: () => (full ? new Promise<void>((resolve) => waiting.push(resolve)) : Promise.resolve()),
        async finish() {
          intake.ending = 'finished';
          await Promise.resolve();
          if (intakes.fault !== undefined) throw new ReceiverError('BUNDLE', intakes.fault);
          return { discard: () => Promise.resolve() } as StagedBundle;
        },
        async abort() {
          await (stuck ? new Promise<void>((resolve) => aborts.push(resolve)) : Promise.resolve());
          if (intake.ending === 'open') intake.ending = 'aborted';
          drain();
        },
      } satisfies BundleIntake;
    },
  };
  return intakes;
}
