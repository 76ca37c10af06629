/** A receiver as far as the shared tools go: enters and starts a build. */
import process from 'node:process';

import { isReceiverError } from '../../src/errors.js';
import { enterToolchain, type ToolchainGate, type GateOptions } from '../../src/toolchains/gate.js';
import { silentLog } from '../../src/log.js';
import { spawnSession } from '../../src/process/session.js';
import type { SessionIdentity } from '../../src/process/stop.js';

export type GateQuestion =
  | { readonly do: 'hello' }
  | { readonly do: 'enter'; readonly options: Omit<GateOptions, 'log'> }
  | { readonly do: 'build'; readonly command: readonly [string, ...string[]] };

export interface GateAnswer {
  readonly error?: string;
  readonly stamp?: string | null;
  readonly build?: SessionIdentity;
}

let gate: ToolchainGate | undefined;

async function answer(question: GateQuestion): Promise<GateAnswer> {
  if (question.do === 'enter') {
    gate = await enterToolchain({ ...question.options, log: silentLog });
    return { stamp: gate.stamp };
  }
  if (question.do === 'hello') return {};
  const session = await spawnSession(question.command, {
    ...{ cwd: '/', env: { PATH: process.env['PATH'] ?? '' }, log: silentLog },
    onOutput() {},
    beforeStart: (identity) => gate!.recordBuild(identity),
  });
  return { build: session.identity };
}

process.on('message', (question: GateQuestion) => {
  answer(question).then(
    (result) => process.send!(result),
    (error: unknown) => process.send!({ error: isReceiverError(error) ? error.code : String(error) }),
  );
});
