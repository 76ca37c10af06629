/**
 * Rounds in which a receiver is killed during a compile while another on the same directory waits to build
 * the same device. The stand-in holds an exclusive file while it runs and fails if another one exists.
 */
import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import {
  createOffloader,
  dial,
  loadOffloaderIdentity,
  makeBundle,
  unpackArtifacts,
  type OffloaderIdentity,
  type OffloaderSession,
} from '../../src/koa/offloader.js';
import { startChild, type Child } from './child.js';
import { isAlive } from './is-alive.js';
import { tempDir } from './temp-dir.js';
import { waitFor } from './wait-for.js';

const host = '127.0.0.1';
const program = fileURLToPath(new URL('receiver-program.js', import.meta.url));
const lockStaleMs = 2_000;
const orphanDeadlineMs = 5_000;

/** In each round, the second build must be correct, and nothing of the first must be left. */
export async function takeOver(t: TestContext, rounds: number): Promise<void> {
  const directory = await tempDir(t);
  const home = await tempDir(t);
  const identity = await loadOffloaderIdentity(home);
  const programs = new Set<string>();
  let victim = await start(t, directory);
  for (let round = 1; round <= rounds; round += 1) {
    const heir = await start(t, directory);
    const [doomed, waiting] = [await connect(victim, identity), await connect(heir, identity)];
    let output = '';
    const lost = doomed
      .build({ ...(await bundle(home, `doomed${round}`, 60_000)), onOutput: (line) => (output += line) })
      .catch(() => 'lost');
    await waitFor(() => output.includes('sleeping'), { deadlineMs: 30_000, what: 'the doomed compile' });
    const right = waiting.build(await bundle(home, `right${round}`, 0));
    await pause(Math.random() * 100);
    // The compiler, and its child in another process group.
    const orphans = await waitFor(
      async () => {
        const found = await processesIn(join(directory, '.esphome'));
        return found.length >= 2 ? found : undefined;
      },
      { deadlineMs: 10_000, what: 'the processes of the compile' },
    );
    victim.child.signal('SIGKILL');
    await waitFor(() => orphans.every((pid) => !isAlive(pid)), {
      deadlineMs: orphanDeadlineMs,
      what: `the end of the killed receiver's processes in round ${round}`,
    });
    const result = await right;
    assert.equal(result.status, 'completed', `round ${round}: ${result.errorMessage}`);
    const { bytes } = await waiting.downloadArtifacts(result.jobId);
    const { firmwarePath, storage } = await unpackArtifacts(bytes, join(home, `out${round}`));
    assert.equal(storage.friendlyName, `right${round}`);
    programs.add(await readFile(firmwarePath, 'utf8'));
    assert.equal(programs.size, round, 'each round has a program of its own');
    await Promise.all([lost, waiting.close()]);
    victim = heir;
  }
  assert.equal(await victim.child.stop(), 0);
}

interface Server {
  readonly child: Child;
  readonly port: number;
  readonly pin: string;
}

async function start(t: TestContext, directory: string): Promise<Server> {
  const child = await startChild(t, [
    process.execPath,
    '--import',
    'tsx',
    program,
    directory,
    String(lockStaleMs),
  ]);
  const [line] = await child.printed(/^\{"port".*$/m, { deadlineMs: 20_000 });
  return { child, ...(JSON.parse(line) as { port: number; pin: string }) };
}

async function connect({ port, pin }: Server, identity: OffloaderIdentity): Promise<OffloaderSession> {
  const offloader = createOffloader({ identity, connect: () => dial({ host, port }), label: 'takeover' });
  if ((await offloader.requestPairing({ pin })) === 'pending') await offloader.waitForApproval({ pin });
  return offloader.openSession({ pin });
}

/** A configuration that leaves a process in its own group behind. */
async function bundle(
  home: string,
  name: string,
  sleepMs: number,
): Promise<{ file: string; bundle: Buffer }> {
  const configDir = join(home, name);
  await mkdir(configDir);
  const text = `# stand-in: sleep=${sleepMs} fork\nesphome:\n  name: kitchen\n  friendly_name: ${name}\nhost:\n`;
  await writeFile(join(configDir, 'kitchen.yaml'), text);
  const { bytes } = await makeBundle({ configDir, file: 'kitchen.yaml' });
  return { file: 'kitchen.yaml', bundle: bytes };
}

/** Pids of live processes whose data directory is below `place`. */
async function processesIn(place: string): Promise<number[]> {
  const pids = (await readdir('/proc')).map(Number).filter(Number.isInteger);
  const found = await Promise.all(
    pids.map(async (pid) => {
      const environ = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
      return environ.includes(`ESPHOME_DATA_DIR=${place}`) ? [pid] : [];
    }),
  );
  return found.flat();
}
