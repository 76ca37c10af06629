/** The shared tools of a receiver in a separate process: enters as a build, removes as an operator. */
import process from 'node:process';

import { isReceiverError } from '../../src/errors.js';
import type { ToolchainGate } from '../../src/toolchains/gate.js';
import { toolPlace, type ToolPlace } from './tool-place.js';

export type ToolQuestion =
  | { readonly do: 'hello' }
  | { readonly do: 'open'; readonly base: string }
  | { readonly do: 'enter'; readonly platform: string }
  | { readonly do: 'leave' }
  | { readonly do: 'remove'; readonly toolchain: string };

export interface ToolAnswer {
  readonly error?: string;
  readonly stamp?: string | null;
  readonly isRemoved?: boolean;
}

let here: ToolPlace | undefined;
let gate: ToolchainGate | undefined;

async function answer(question: ToolQuestion): Promise<ToolAnswer> {
  if (question.do === 'open') here = await toolPlace(question.base);
  if (here === undefined) return {};
  if (question.do === 'enter') {
    gate = await here.enter(question.platform);
    return { stamp: gate.stamp };
  }
  if (question.do === 'leave') await gate?.leave();
  if (question.do !== 'remove') return {};
  const entry = await here.entry(question.toolchain);
  return { isRemoved: entry !== undefined && (await here.shelf.remove(entry)) };
}

process.on('message', (question: ToolQuestion) => {
  answer(question).then(
    (result) => process.send!(result),
    (error: unknown) => process.send!({ error: isReceiverError(error) ? error.code : String(error) }),
  );
});
