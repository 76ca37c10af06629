/** Runs a program for a while, stops it, and returns what it printed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { plainText } from 'koa-esphome-receiver/offloader';

/** Its last lines without colours, at most six. Throws if the program ends before that. */
export async function runFor(program: string, ms: number): Promise<string[]> {
  const child = spawn(program, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  }
  const timer = setTimeout(() => child.kill('SIGKILL'), ms);
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  clearTimeout(timer);
  if (signal !== 'SIGKILL') throw new Error(`the program ended early (${code ?? signal}):\n${output}`);
  return plainText(output).trim().split('\n').slice(-6);
}
