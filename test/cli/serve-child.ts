/** `serve` as a child of a test, from its source, with the stand-in compiler and free ports of 127.0.0.1. */
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { standInEsphome } from '../../src/testing/index.js';
import { startChild, type Child } from '../support/child.js';
import { tempDir } from '../support/temp-dir.js';

export const main = new URL('../../src/cli/main.ts', import.meta.url).pathname;

export async function start(t: TestContext, ...args: string[]): Promise<Child> {
  return startChild(t, [process.execPath, '--import', 'tsx', main, ...args]);
}

export async function serve(t: TestContext, ...more: string[]): Promise<{ child: Child; directory: string }> {
  const directory = join(await tempDir(t), 'new');
  return { child: await start(t, ...serveWords(directory), ...more), directory };
}

export function serveWords(directory: string): string[] {
  const esphome = standInEsphome.join(' ');
  return ['serve', directory, '--port', '0', '--host', '127.0.0.1', '--esphome', esphome];
}

/** Waits for the object of one event in the output. */
export async function event(child: Child, name: string): Promise<Record<string, unknown>> {
  const [line] = await child.printed(new RegExp(`^\\{"event":"${name}".*\\}$`, 'm'), { deadlineMs: 20_000 });
  return JSON.parse(line) as Record<string, unknown>;
}
