/** The programs of the README as their reader runs them, with the stand-in for speed: a Koa host, and a client twice. */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { standInEsphome } from '../../src/testing/index.js';
import { startChild, type Child } from '../support/child.js';
import { typescriptBlocks, userProject, type Project } from '../support/code-blocks.js';
import { freePort } from '../support/free-port.js';
import type { Cleanups } from '../support/temp-dir.js';
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
