/** The programs of the README as their reader runs them, with the stand-in for speed: a Koa host, and a client twice. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { createOffloader, dial, loadOffloaderIdentity, pinOf } from '../../src/koa/offloader.js';
import { standInEsphome } from '../../src/testing/index.js';
import { startChild, type Child } from '../support/child.js';
import { codeBlocks, typescriptBlocks, userProject, type Project } from '../support/code-blocks.js';
import { freePort } from '../support/free-port.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { yaml } from '../support/whole.js';
import { readText } from '../house/sources.js';

const serveProgram = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const deadlineMs = 60_000;

/** The block that calls that function, with what differs from one machine to the next replaced. */
function program(call: string, replaced: Readonly<Record<string, string>>): string {
  const block = typescriptBlocks('README.md', readText('README.md')).find(({ code }) =>
    code.includes(`${call}(`),
  );
  assert.ok(block, `a block that calls ${call}`);
  return Object.entries(replaced).reduce((code, [text, other]) => {
    assert.ok(code.includes(text), `${text} in the block that calls ${call}`);
    return code.replaceAll(text, other);
  }, block.code);
}

/** The shell commands of a document that call the admin API, as one script per block. */
function adminScripts(path: string): string[] {
  return codeBlocks(path, readText(path), 'sh')
    .map(({ code }) => code)
    .filter((code) => code.includes('$API'));
}

function run(t: Cleanups, { directory, tsconfig }: Project, file: string, ...args: string[]): Promise<Child> {
  const env = { ...process.env, TSX_TSCONFIG_PATH: tsconfig, ESPHOME_COMMAND: standInEsphome.join(' ') };
  const tsx = import.meta.resolve('tsx');
  return startChild(t, [process.execPath, '--import', tsx, file, ...args], { cwd: directory, env });
}

test('The client of the README pairs by key, builds, prints plain lines, and builds again without the key', async (t) => {
  const project = await userProject(t);
  const { directory } = project;
  const serving = await startChild(t, [
    ...[process.execPath, '--import', 'tsx', serveProgram, 'serve', join(directory, 'server'), '--json'],
    ...['--port', '0', '--host', '127.0.0.1', '--esphome', standInEsphome.join(' ')],
  ] as [string, ...string[]]);
  const [, port = ''] = await serving.printed(/"event":"listening".*"port":(\d+)/, { deadlineMs });
  const [, key = ''] = await serving.printed(/"key":"([^"]+)"/, { deadlineMs });
  await mkdir(join(directory, 'config'));
  await writeFile(join(directory, 'config', 'kitchen.yaml'), yaml('kitchen'));
  await writeFile(join(directory, 'build.ts'), program('makeBundle', { 6055: port }));

  for (const [args, shown] of [
    [[key], /^\[28\/28\] LINK program$/m],
    [[], /^The same bundle .*\bresult\b/m],
  ] as const) {
    const client = await run(t, project, 'build.ts', ...args);
    assert.equal(await client.ended, 0, client.output());
    assert.match(client.output(), /^Fingerprint: (?:[0-9a-f]{2} ){31}[0-9a-f]{2}$/m);
    assert.match(client.output(), shown);
    assert.match(client.output(), /^firmware\/.*program$/m);
    assert.doesNotMatch(client.output(), /\x1b|\\033|\n\n| stdout$/m);
  }
  assert.equal(await serving.stop(), 0);
});

test('The host of the README answers its operator and dashboards, and ends with 0 by SIGTERM', async (t) => {
  const project = await userProject(t);
  const { directory } = project;
  const ports = { 6055: String(await freePort()), 6052: String(await freePort()) };
  await mkdir(join(directory, 'config'));
  const code = program('createReceiver', { ...ports, '/config/esphome': 'config' });
  const isAdmin = "const isAdmin = (ctx: Koa.Context) => ctx.get('cookie') === 'admin';\n";
  await writeFile(join(directory, 'host.ts'), isAdmin + code);
  const host = await run(t, project, 'host.ts');

  const answer = async (port: string, path: string, cookie = ''): Promise<number | undefined> =>
    fetch(`http://127.0.0.1:${port}${path}`, { headers: { cookie } }).then(
      ({ status }) => status,
      () => undefined,
    );
  const state = '/esphome-receiver/state';
  await waitFor(async () => (await answer(ports[6052], state)) !== undefined, {
    what: 'the host',
    deadlineMs,
  });
  assert.equal(await answer(ports[6052], state), 401);
  assert.equal(await answer(ports[6052], state, 'admin'), 200);
  assert.equal(await answer(ports[6055], '/'), 404);
  assert.equal(await answer(ports[6052], '/?configuration=kitchen.yaml'), 500);
  host.signal('SIGTERM');
  assert.equal(await host.ended, 0, host.output());
});

test('The paths of the README are those that its comments show', async (t) => {
  const project = await userProject(t);
  const id = 'a'.repeat(32);
  const checked = program('createPaths', { '<dashboard_id>': id })
    .replace(/^(paths\..*);\n\/\/ (\/.*)$/gm, "assert.equal($1, '$2');")
    .replace(/^(paths\..*); \/\/ throws (\w+)$/gm, "assert.throws(() => $1, { code: '$2' });");
  assert.equal(checked.match(/^assert/gm)?.length, 3, checked);
  assert.doesNotMatch(checked, /^(?:paths|\/\/)/m);
  const code = `import assert from 'node:assert/strict';\n${checked}\nconsole.log('as shown');\n`;
  await writeFile(join(project.directory, 'paths.ts'), code);
  const child = await run(t, project, 'paths.ts');
  assert.equal(await child.ended, 0, child.output());
  assert.match(child.output(), /as shown/);
});

test('The admin commands of the documents pair, list and revoke a dashboard, and show what their comments say', async (t) => {
  if (spawnSync('curl', ['--version']).error) return t.skip('needs curl');
  const directory = await tempDir(t);
  const adminPort = await freePort();
  const serving = await startChild(t, [
    ...[process.execPath, '--import', 'tsx', serveProgram, 'serve', join(directory, 'server'), '--json'],
    ...[
      '--port',
      '0',
      '--host',
      '127.0.0.1',
      '--admin',
      String(adminPort),
      '--esphome',
      standInEsphome.join(' '),
    ],
  ] as [string, ...string[]]);
  const [, listening] = await serving.printed(/"event":"listening".*"port":(\d+)/, { deadlineMs });
  const port = Number(listening);
  const [, pairingKey = ''] = await serving.printed(/"key":"([^"]+)"/, { deadlineMs });
  const connect = () => dial({ host: '127.0.0.1', port });
  const first = createOffloader({ identity: await loadOffloaderIdentity(join(directory, 'first')), connect });
  const { pin: serverPin } = await first.preview();
  await first.requestPairing({ pin: serverPin, pairingKey });
  const identity = await loadOffloaderIdentity(join(directory, 'identity'));
  const pin = pinOf(identity.publicKey);
  const offloader = createOffloader({ identity, connect });

  const [pairing = '', revoking = ''] = adminScripts('docs/OPERATING.md');
  const [overview = ''] = adminScripts('README.md');
  const [, api = ''] = /^API=(\S+)$/m.exec(pairing) ?? [];
  assert.ok(overview.includes(`API=${api}\n`));
  const admin = api.replace(':6053/', `:${adminPort}/`);

  /** Runs the commands one by one, each with the address of this server, and gives their answers. */
  const answersOf = async (script: string, between?: () => Promise<unknown>): Promise<string[]> => {
    const answers: string[] = [];
    for (const command of script.split('\n').filter((line) => line.startsWith('curl '))) {
      const fixed = command.replace('$API', '').replace('DASHBOARD_ID', '').replace('"PIN"', '');
      assert.doesNotMatch(fixed, /\$|[A-Z]_[A-Z]/);
      const filled = command
        .replace('$API', admin)
        .replace('DASHBOARD_ID', identity.dashboardId)
        .replace('"PIN"', JSON.stringify(pin));
      const curl = spawnSync('sh', ['-c', filled.replace('curl', 'curl -sS --fail-with-body')], {
        encoding: 'utf8',
      });
      assert.equal(curl.status, 0, `${filled}: ${curl.stdout}${curl.stderr}`);
      answers.push(curl.stdout);
      await between?.();
    }
    return answers;
  };

  const [, requests = ''] = await answersOf(pairing, () => offloader.requestPairing({ pin: serverPin }));
  assert.match(requests, new RegExp(pin));
  const [opened = '', peers = '', swept = ''] = await answersOf(overview);
  assert.match(opened, /^\{"closesInMs":\d+\}$/);
  assert.ok(peers.includes(`{"dashboardId":"${identity.dashboardId}","pin":"${pin}"`), peers);
  assert.ok(overview.includes(`# ${swept}\n`), swept);
  await answersOf(revoking);
  await assert.rejects(offloader.openSession({ pin: serverPin }), { code: 'REJECTED' });
  await serving.stop();
});
