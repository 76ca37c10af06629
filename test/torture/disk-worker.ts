/** A receiver in a process of its own whose descriptors can run out, and which its test can ask to decide and to restart. */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import process from 'node:process';

import { createReceiver, type Receiver } from '../../src/index.js';
import type { Log } from '../../src/log.js';
import { standInEsphome } from '../../src/testing/index.js';

export type DiskQuestion =
  | { readonly do: 'hello' | 'stop' | 'approve' | 'peers' | 'jobs' | 'exhaust' | 'relieve' | 'sweep' | 'log' }
  | { readonly do: 'start'; readonly configDir: string }
  | { readonly do: 'revoke'; readonly id: string };

export interface DiskAnswer {
  readonly error?: string;
  readonly port?: number;
  readonly pin?: string;
  readonly ids?: readonly string[];
  readonly text?: string;
}

/** More than the receiver holds open, so that the limit is reached by opening a few more. */
const maxOpen = 512;
let receiver: Receiver | undefined;
const hogs: number[] = [];
const lines: string[] = [];

const note =
  (level: string) =>
  (facts: object, text: string): void => {
    const err: unknown = Reflect.get(facts, 'err');
    lines.push(`${level} ${text}${err instanceof Error ? `: ${err.message}` : ''}`);
  };
const log: Log = { debug() {}, info: note('info'), warn: note('warn'), error: note('error') };

async function answer(question: DiskQuestion): Promise<DiskAnswer> {
  switch (question.do) {
    case 'hello':
      break;
    case 'start': {
      const started = await createReceiver({
        configDir: question.configDir,
        ...{ esphome: standInEsphome, provisionVersions: false, lockStaleMs: 2_000, slots: 2, log },
        ...{ minFreeDiskBytes: 4_000_000, minFreeMemoryBytes: 0 },
      });
      try {
        const port = await started.listen(0, '127.0.0.1');
        receiver = started;
        return { port, pin: started.pin };
      } catch (error) {
        await started.close();
        throw error;
      }
    }
    case 'stop':
      await receiver?.close();
      receiver = undefined;
      break;
    case 'approve': {
      receiver?.pairing.open();
      const requests = receiver?.pairing.requests() ?? [];
      for (const { dashboardId, pin } of requests) await receiver?.pairing.approve(dashboardId, pin);
      return { ids: requests.map(({ dashboardId }) => dashboardId) };
    }
    case 'revoke':
      return { text: String(await receiver?.peers.revoke(question.id)) };
    case 'peers':
      return { ids: receiver?.peers.list().map(({ dashboardId }) => dashboardId) ?? [] };
    case 'jobs':
      return { ids: receiver?.jobs.list().map(({ id, state }) => `${id} ${state}`) ?? [] };
    case 'sweep':
      await receiver?.retention.sweep();
      break;
    case 'log':
      return { text: lines.splice(0).join('\n') };
    case 'exhaust':
      execFileSync('prlimit', ['--pid', String(process.pid), `--nofile=${maxOpen}:`]);
      for (;;) {
        try {
          hogs.push(openSync('/dev/null', 'r'));
        } catch {
          break;
        }
      }
      break;
    case 'relieve':
      for (const hog of hogs.splice(0)) closeSync(hog);
      break;
  }
  return {};
}

process.on('message', (question: DiskQuestion) => {
  answer(question).then(
    (said) => process.send?.(said),
    (error: unknown) =>
      process.send?.({
        error: error instanceof Error ? `${Reflect.get(error, 'code')}: ${error.message}` : String(error),
      }),
  );
});
process.on('disconnect', () => process.exit());
