/**
 * First builds of a platform one after the other, later ones together, and broken tools renewed: with the real gate
 * on real files. That a holder which dies leaves no ready mark is shown where the gate itself is tested.
 */
import assert from 'node:assert/strict';
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { ReceiverError } from '../../src/errors.js';
import type { JobRecord } from '../../src/jobs/record.js';
import type { ToolBuild } from '../../src/toolchains/access.js';
import { createTools } from '../../src/toolchains/run-with-tools.js';
import { readyTools, suspectTools, type ToolchainGate } from '../../src/toolchains/gate.js';
import { silentLog as log } from '../../src/log.js';
import { waitFor } from '../support/wait-for.js';
import { cleanResult } from '../jobs/harness.js';
import { assertSucceeded, host, site, type Site } from '../jobs/site.js';

const esp32 = (knobs: string, more = ''): string =>
  `# stand-in: tools ${knobs}\nesphome:\n  name: k\nesp32:\n  board: x\n${more}`;

/** Submits builds of different devices; each waits for the file. */
async function start(here: Site, texts: readonly string[], prefix: string): Promise<Building[]> {
  return Promise.all(
    texts.map(async (text, index) => {
      const name = `${prefix}${index}`;
      const id = await here.submit(text, { name: `${name}.yaml`, peerJobId: name });
      return { id, ended: here.ended(id), says: (words: RegExp) => saysIn(here, id, words) };
    }),
  );
}

interface Building {
  readonly id: string;
  readonly ended: Promise<JobRecord>;
  says(words: RegExp): Promise<unknown>;
}

function saysIn(here: Site, id: string, words: RegExp): Promise<unknown> {
  return waitFor(async () => words.test(await here.jobs.readLog(id)), { what: String(words) });
}

async function ready(here: Site): Promise<string[]> {
  return (await readyTools(here.paths.layout.toolchainsDir)).map(
    ({ key }) => `${key.platform} ${key.framework}`,
  );
}

/** Tools that were ready once and are damaged now. */
async function withBrokenTools(t: TestContext): Promise<Site> {
  const here = await site(t);
  assertSucceeded(await here.build(esp32(''), { name: 'first.yaml' }));
  await writeFile(join(here.paths.layout.toolchainsDir, 'idf', 'broken'), '');
  return here;
}

test('Two first builds of a platform never install at once; later ones build together', async (t) => {
  const here = await site(t);
  const barrier = join(here.base, 'go-on');
  const cold = await start(here, [esp32(`wait=${barrier}`), esp32(`wait=${barrier}`, 'api:\n')], 'cold');
  const waiting = /^Waiting for another build to install the tools of esp32\.$/m;
  const installing = /^stand-in: installs its tools$/m;
  await Promise.any(cold.map(({ says }) => says(waiting)));
  await Promise.any(cold.map(({ says }) => says(installing)));
  assert.deepEqual(await ready(here), []);
  await writeFile(barrier, '');
  for (const { ended } of cold) assertSucceeded(await ended);
  const logs = await Promise.all(cold.map(({ id }) => here.jobs.readLog(id)));
  assert.deepEqual(
    [waiting, installing].map((words) => logs.filter((text) => words.test(text)).length),
    [1, 1],
  );
  assert.deepEqual(await ready(here), ['esp32 esp-idf']);

  const second = join(here.base, 'go-on-2');
  const warm = await start(here, [esp32(`wait=${second}`), esp32(`wait=${second}`, 'api:\n')], 'warm');
  await Promise.all(warm.map(({ says }) => says(/^stand-in: waiting$/m)));
  await writeFile(second, '');
  for (const { ended } of warm) assertSucceeded(await ended);
});

test('A build for the host waits for no tools, and an unknown platform is never ready', async (t) => {
  const here = await site(t);
  const barrier = join(here.base, 'go-on');
  const knobs = `# stand-in: wait=${barrier}\n`;
  const builds = await start(here, [knobs + host('a'), knobs + host('b')], 'host');
  await Promise.all(builds.map(({ says }) => says(/^stand-in: waiting$/m)));
  await writeFile(barrier, '');
  for (const { ended } of builds) assertSucceeded(await ended);

  const hidden = '# stand-in: platform=esp32\nesphome:\n  name: k\n';
  assertSucceeded(await here.build(hidden, { name: 'hidden.yaml' }));
  assert.deepEqual(await ready(here), []);
});

test('A configuration of megabytes counts as one of an unknown platform, because scanning it would block the process', async (t) => {
  const here = await site(t);
  const comments = '# comment\n'.repeat(110_000);
  assertSucceeded(await here.build(esp32('', comments), { name: 'long.yaml' }));
  assert.deepEqual(await ready(here), []);
});

test('A failed first build leaves the tools cold', async (t) => {
  const here = await site(t);
  assert.equal((await here.build(esp32('exit=1'))).failureReason, 'compile');
  assert.deepEqual(await ready(here), []);
});

test('Broken tools are set aside once, and the build succeeds with new ones', async (t) => {
  const here = await site(t);
  const { toolchainsDir, trashDir } = here.paths.layout;
  // The second has other tools in the same directory; those of the third are elsewhere.
  const others = { c3: esp32('', '  variant: ESP32C3\n'), bk: 'esphome:\n  name: k\nbk72xx:\n' };
  for (const [name, text] of Object.entries({ first: esp32(''), ...others }))
    assertSucceeded(await here.build(text, { name: `${name}.yaml`, peerJobId: name }));
  await mkdir(join(toolchainsDir, 'platformio'));
  await writeFile(join(toolchainsDir, 'idf', 'broken'), '');
  const job = await here.build(esp32(''), { name: 'second.yaml' });
  assertSucceeded(job);
  const text = await here.jobs.readLog(job.id);
  assert.equal(text.split('The tools of esp32 are broken').length, 2);
  assert.match(text, /^stand-in: installs its tools$/m);
  assert.ok((await stat(join(toolchainsDir, 'platformio'))).isDirectory());
  assert.deepEqual((await ready(here)).toSorted(), ['bk72xx arduino', 'esp32 esp-idf']);
  assert.deepEqual(await readdir(trashDir), []);
});

test('A first build waits for running builds of other platforms that share its directory, and keeps later ones out', async (t) => {
  const here = await site(t);
  const bk = (knobs: string): string =>
    `# stand-in: tools ${knobs}\nesphome:\n  name: k\nbk72xx:\n  board: x\n`;
  const rtl = (knobs: string): string => bk(knobs).replace('bk72xx', 'rtl87xx');
  assertSucceeded(await here.build(bk(''), { name: 'first.yaml' }));
  const [one, two] = [join(here.base, 'one'), join(here.base, 'two')];
  const running = (await start(here, [bk(`wait=${one}`)], 'running'))[0]!;
  await running.says(/^stand-in: waiting$/m);

  const first = (await start(here, [rtl(`wait=${two}`)], 'first'))[0]!;
  await first.says(/^Waiting for another build to install the tools of rtl87xx\.$/m);
  await writeFile(one, '');
  assertSucceeded(await running.ended);
  await first.says(/^stand-in: waiting$/m);

  const later = (await start(here, [bk('')], 'later'))[0]!;
  await later.says(/^Waiting for another build to install the tools of bk72xx\.$/m);
  await writeFile(two, '');
  assertSucceeded(await first.ended);
  assertSucceeded(await later.ended);
});

test('Tools that a dashboard has reset are renewed only if its next build fails for no known reason', async (t) => {
  const here = await site(t);
  const { toolchainsDir } = here.paths.layout;
  assertSucceeded(await here.build(esp32(''), { name: 'first.yaml' }));
  const renewals = async (knobs: string, name: string): Promise<[string, boolean]> => {
    const job = await here.build(esp32(knobs), { name: `${name}.yaml`, peerJobId: name });
    const text = await here.jobs.readLog(job.id);
    return [job.state, /were reset before this failure; running the build again/.test(text)];
  };
  assert.deepEqual(await renewals('exit=1', 'trusted'), ['failed', false]);
  const doubt = (): Promise<void> => suspectTools(toolchainsDir, ({ platform }) => platform === 'esp32');
  await doubt();
  const own = 'print=src/main.cpp:3:1:_error:_x exit=1';
  assert.deepEqual(await renewals(own, 'own'), ['failed', false]);
  assert.deepEqual(await renewals('exit=1', 'doubted'), ['failed', true]);
  assert.deepEqual(await renewals('', 'renewed'), ['completed', false]);
  assert.deepEqual(await renewals('exit=1', 'again'), ['failed', false]);
  await doubt();
  assert.deepEqual(await renewals('', 'success'), ['completed', false]);
  assert.deepEqual(await renewals('exit=1', 'afterwards'), ['failed', false]);
});

test('Tools that stay broken are the fault of the server, and are not fetched again for the next build', async (t) => {
  const here = await withBrokenTools(t);
  const knobs = 'print=sh:_1:_xtensa-esp32-elf-g++:_not_found exit=1';
  const renewals: boolean[] = [];
  for (const name of ['second', 'third']) {
    const job = await here.build(esp32(knobs), { name: `${name}.yaml`, peerJobId: name });
    assert.deepEqual(
      [job.failureReason, job.errorMessage],
      ['toolchain', 'the tools of the build server are broken; the log says which must be repaired'],
    );
    renewals.push(/are broken; running the build again/.test(await here.jobs.readLog(job.id)));
  }
  assert.deepEqual(renewals, [true, false]);
});

test('A device that takes working tools for broken has them renewed once, whatever it calls them, until it succeeds', async (t) => {
  const here = await site(t);
  const of = (board: string, knobs: string): string => esp32(knobs).replace('board: x', `board: ${board}`);
  const knobs = 'print=sh:_1:_xtensa-esp32-elf-g++:_not_found exit=1';
  let count = 0;
  const renews = async (text: string, name: string): Promise<boolean> => {
    count += 1;
    const job = await here.build(`${text}# ${count}\n`, { name: `${name}.yaml`, peerJobId: `job${count}` });
    return /are broken; running the build again/.test(await here.jobs.readLog(job.id));
  };
  assert.equal(await renews(of('x', ''), 'good'), false);
  assert.equal(await renews(of('a', knobs), 'bad'), true);
  assert.equal(await renews(of('b', knobs), 'bad'), false, 'tools of another name are in the same directory');
  assert.equal(await renews(of('c', knobs), 'other'), false, 'also for another device');
  assert.equal(await renews(of('x', ''), 'good'), false);
  assert.equal(
    await renews(of('x', knobs), 'bad'),
    false,
    'the success of another device is none of its own',
  );
  assert.equal(await renews(of('x', knobs), 'other'), true, 'a device that was not believed before');
  assert.equal(await renews(of('x', ''), 'bad'), false);
  assert.equal(await renews(of('x', knobs), 'bad'), true, 'it has succeeded meanwhile');
});

test('A build of another platform than its configuration seems to be does not make the tools of that ready', async (t) => {
  const here = await site(t);
  for (const platform of ['rp2', 'esp8266'])
    assertSucceeded(await here.build(esp32(`platform=${platform}`), { name: `${platform}.yaml` }));
  const otherTools = 'esphome:\n  name: k\nesp32:\n  toolchain: platformio\n';
  assertSucceeded(await here.build(otherTools, { name: 'tools.yaml' }));
  assert.deepEqual(await ready(here), []);
  assertSucceeded(await here.build(esp32(''), { name: 'true.yaml' }));
  assert.deepEqual(await ready(here), ['esp32 esp-idf']);
});

test('A gate that is lost ends the build as a lost lock, whichever way it is told', async (t) => {
  const here = await site(t);
  const { paths } = here;
  const lease = { signal: new AbortController().signal, recordBuild: async () => {} };
  const build: ToolBuild = {
    ...{ id: 'a', configuration: (await here.build(esp32(''))).configuration, version: '1', lease },
    ...{ signal: new AbortController().signal, output() {}, onWaiting() {}, onPlatform() {} },
  };
  const gate: ToolchainGate = {
    ...{ stamp: null, signal: AbortSignal.abort(new Error('gone')) },
    recordBuild: () => Promise.reject(new ReceiverError('FENCED', 'a newer owner')),
    markReady: () => assert.fail('nothing is ready'),
    leave: async () => void (left += 1),
  };
  let left = 0;
  const tools = createTools({
    ...{ paths, log },
    enterToolchain: () => Promise.resolve(gate),
    directories: {
      use: async () => ({ ...lease, leave: async () => void (left += 1) }),
      useAlone: async () => ({
        ...{ ...lease, leave: async () => void (left += 1) },
        setAside: () => assert.fail('nothing is broken'),
      }),
    },
  });
  const lost = { code: 'LOCK_LOST' };
  await assert.rejects(
    tools.compile(build, async ({ signal, recordBuild }) => {
      assert.ok(signal.aborted);
      await assert.rejects(recordBuild({ pid: 1, startTime: 1, bootId: '' } as never), lost);
      return cleanResult;
    }),
    lost,
  );
  assert.equal(left, 3);
});
