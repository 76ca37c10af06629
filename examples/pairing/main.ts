/**
 * Pairing as two people do it: a build server with a page for its operator, and another dashboard, each a process of
 * its own.
 *
 *     npx tsx examples/pairing/main.ts [--port 6052] [--link-port 6055] [--esphome CMD]
 *     npx tsx examples/pairing/main.ts --once [--esphome CMD]      plays both people, and ends by itself
 *
 * Without `--once` you play both people, one in the browser and one in this terminal. All files are in a temporary
 * directory, which Ctrl-C removes.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { isReceiverError } from 'koa-esphome-receiver';
import { portOf, readArgs } from '../start/read-args.js';
import { aborted, endingSignal } from './ending.js';
import { playOnce } from './once.js';
import { openTerminal } from './processes.js';

const usage = 'Usage: main.ts [--once] [--port 6052] [--link-port 6055] [--esphome CMD]';

const { values } = readArgs(usage, {
  options: {
    once: { type: 'boolean', default: false },
    port: { type: 'string', default: '6052' },
    'link-port': { type: 'string', default: '6055' },
    esphome: { type: 'string' },
  },
});

async function beBoth(work: string, esphome: readonly string[]): Promise<void> {
  for (const flag of ['port', 'link-port'] as const) portOf(flag, values[flag]);
  const ending = endingSignal();
  const home = join(work, 'server');
  await mkdir(home);
  const ports = ['--port', values.port, '--link-port', values['link-port']];
  const server = openTerminal('server', 'host.ts', [home, ...ports, ...esphome]);
  try {
    const [, linkPort = ''] = await server.reads(/Peer link: 127\.0\.0\.1:(\d+)/);
    await server.reads(/Page: .*\n/);
    console.log(
      '\nOpen the page in a browser. This terminal is the other dashboard. Press Ctrl-C to stop both.\n',
    );
    const program = fileURLToPath(new URL('other.ts', import.meta.url));
    const other = fork(program, [join(work, 'other'), '--port', linkPort], { stdio: 'inherit' });
    await Promise.race([once(other, 'exit'), aborted(ending)]);
    if (!ending.aborted) console.log('\nThe other dashboard has ended. The page stays until Ctrl-C.');
    await Promise.race([server.ended, aborted(ending)]);
    if (other.exitCode === null && other.kill('SIGTERM')) await once(other, 'exit');
  } finally {
    await server.stop();
  }
}

const work = await mkdtemp(join(tmpdir(), 'pairing-'));
try {
  const esphome = values.esphome === undefined ? [] : ['--esphome', values.esphome];
  await (values.once ? playOnce(work, esphome) : beBoth(work, esphome));
} catch (error) {
  console.error(isReceiverError(error) ? error.message : error);
  process.exitCode = 1;
} finally {
  await rm(work, { recursive: true, force: true });
}
