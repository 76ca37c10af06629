/** One owner a directory, with the real compiler: two servers at once, one name twice, and a kill in the middle. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';

import {
  createOffloader,
  dial,
  loadOffloaderIdentity,
  makeBundle,
  unpackArtifacts,
  type OffloaderSession,
} from '../../src/koa/offloader.js';
import { startChild, type Child } from '../support/child.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { realEsphome } from './support.js';

const host = '127.0.0.1';
const [esphome] = await realEsphome();
const directory = await tempDir({ after });
const home = await tempDir({ after });
const identity = await loadOffloaderIdentity(home);

interface Server {
  readonly child: Child;
  readonly port: number;
  readonly pin: string;
}

async function startServer(): Promise<Server> {
  const child = await startChild({ after }, [
    ...([process.execPath, '--import', 'tsx', 'src/cli/main.ts', 'serve', directory] as const),
    ...['--port', '0', '--host', host, '--esphome', esphome, '--json'],
  ]);
  const [line] = await child.printed(/^\{"event":"listening".*$/m, { deadlineMs: 20_000 });
  return { child, ...(JSON.parse(line) as { port: number; pin: string }) };
}

async function connect({ port, pin }: Server): Promise<OffloaderSession> {
  const session = await clientOf(port).openSession({ pin });
  after(() => session.close());
  return session;
}

function clientOf(port: number): ReturnType<typeof createOffloader> {
  return createOffloader({ identity, connect: () => dial({ host, port }), label: 'isolation' });
}

/** A program that prints `words` over and over. */
async function bundleOf(file: string, name: string, words: string): Promise<Buffer> {
  const configDir = join(home, `${name}-${words}`);
  await mkdir(configDir, { recursive: true });
  const text = `
esphome: {name: ${name}}
host:
logger:
interval:
  - interval: 200ms
    then:
      - lambda: 'ESP_LOGI("test", "these words: ${words}");'
`;
  await writeFile(join(configDir, file), text);
  return (await makeBundle({ configDir, file })).bytes;
}

/** Builds, fetches and runs: what the program says. */
async function wordsOf(
  session: OffloaderSession,
  file: string,
  name: string,
  words: string,
): Promise<string> {
  const log: string[] = [];
  const bundle = await bundleOf(file, name, words);
  const result = await session.build({ file, bundle, onOutput: (line) => log.push(line) });
  assert.equal(result.status, 'completed', result.errorMessage + log.slice(-20).join(''));
  const { bytes } = await session.downloadArtifacts(result.jobId);
  const { firmwarePath } = await unpackArtifacts(bytes, join(home, `out-${file}-${words}`));
  const output = await new Promise<string>((resolve) => {
    execFile(firmwarePath, { timeout: 1500 }, (_ended, stdout, stderr) => resolve(stdout + stderr));
  });
  return /these words: (\w+)/.exec(output)?.[1] ?? output;
}

async function processesIn(dataDir: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const environ = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
      return environ.includes(`ESPHOME_DATA_DIR=${dataDir}`) ? [pid] : [];
    }),
  );
  return found.flat();
}

const first = await startServer();
const [, key = ''] = await first.child.printed(/"pairing_key","key":"([^"]+)"/);
await clientOf(first.port).requestPairing({ pin: first.pin, pairingKey: key });
const subtree = join(directory, '.esphome', '.remote_builds', identity.dashboardId, 'kitchen');

test('A receiver that is killed in the middle takes its compilers along, and the next one builds the device', async () => {
  const session = await connect(first);
  const bundle = await bundleOf('kitchen.yaml', 'kitchen', 'never');
  const lost = assert.rejects(session.build({ file: 'kitchen.yaml', bundle }), { code: 'PROTOCOL' });
  const header = join(subtree, 'build', 'kitchen', '.pioenvs', 'kitchen');
  await waitFor(async () => (await readdir(header).catch((): string[] => [])).includes('esphome_pch.h'), {
    deadlineMs: 30_000,
    what: 'the precompiled header to begin',
  });
  first.child.signal('SIGKILL');
  await first.child.ended;
  await lost;
  await waitFor(async () => (await processesIn(subtree)).length === 0, {
    deadlineMs: 5_000,
    what: 'no process of the build',
  });
  const next = await startServer();
  assert.equal(await wordsOf(await connect(next), 'kitchen.yaml', 'kitchen', 'healed'), 'healed');
  assert.equal(await next.child.stop(), 0);
});

test('Two receivers on one directory build the same device of the same peer at once, each its own program', async () => {
  const servers = [await startServer(), await startServer()] as const;
  const sessions = await Promise.all(servers.map(connect));
  const said = await Promise.all(
    sessions.map((session, index) => wordsOf(session, 'kitchen.yaml', 'kitchen', `server${index}`)),
  );
  assert.deepEqual(said, ['server0', 'server1']);
  for (const { child } of servers) assert.equal(await child.stop(), 0);
});

test('Two files of one peer with one node name, sent together, give each its own program', async () => {
  const server = await startServer();
  const session = await connect(server);
  const said = await Promise.all([
    wordsOf(session, 'upstairs.yaml', 'lamp', 'upstairs'),
    wordsOf(session, 'downstairs.yaml', 'lamp', 'downstairs'),
  ]);
  assert.deepEqual(said, ['upstairs', 'downstairs']);
  assert.equal(await server.child.stop(), 0);
});
