/** The stand-in and our own steps of a compile, held against the real ESPHome. */
import assert from 'node:assert/strict';
import { mkdir, readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, test, type TestContext } from 'node:test';

import { runCompile } from '../../src/compile/compile.js';
import { precheck } from '../../src/compile/precheck.js';
import { judge } from '../../src/compile/verdict.js';
import { verifyBuild } from '../../src/artifacts/firmware.js';
import { isReceiverError } from '../../src/errors.js';
import { compileArgs, type EsphomeCommand } from '../../src/esphome/command.js';
import { plainText, readProgress, startOfProgress, type Progress } from '../../src/esphome/progress.js';
import { probeVersion } from '../../src/esphome/version.js';
import { silentLog } from '../../src/log.js';
import { createPaths, dashboardId, deviceFromFile } from '../../src/paths/index.js';
import { standInEsphome } from '../../src/testing/index.js';
import { tempDir } from '../support/temp-dir.js';
import { esphomeVersion, realEsphome } from './support.js';

let esphome: EsphomeCommand = standInEsphome;
before(async () => {
  esphome = await realEsphome();
});

const { signal } = new AbortController();
const path = process.env['PATH'] ?? '';

interface Run {
  readonly code: number | null;
  readonly lines: readonly string[];
  readonly progress: Progress;
}

/** A device of its own: the same names for every compiler, so that what differs is the compiler's. */
async function device(t: TestContext, yaml: string) {
  const base = await tempDir(t);
  const paths = createPaths({ configDir: join(base, 'config') });
  const key = { dashboardId: dashboardId('k3Jx0Qm7vXb2Zr8T'), device: deviceFromFile('kitchen.yaml') };
  const configuration = paths.formatConfiguration(key, 'kitchen.yaml');
  const dataDir = paths.resolveDataDir(configuration);
  const file = paths.resolveConfigPath(configuration);
  await mkdir(join(file, '..'), { recursive: true });
  await mkdir(join(base, 'home'));
  await writeFile(file, yaml);
  const env = { PATH: path, HOME: join(base, 'home'), ESPHOME_DATA_DIR: dataDir, ESPHOME_NOGITIGNORE: '1' };
  const common = { cwd: base, env, signal, leaseSignal: signal, log: silentLog };
  return {
    ...{ base, paths, configuration, dataDir, file, common },
    async run(command: EsphomeCommand): Promise<Run> {
      const lines: string[] = [];
      let progress = startOfProgress();
      const onLine = (line: string): void => {
        lines.push(plainText(line).replaceAll(base, '<base>').trimEnd());
        progress = readProgress(progress, line);
      };
      const result = await runCompile({ ...common, command, onLine, timeoutMs: 300_000 });
      assert.equal(result.exitCode === 0, judge(result, { timeoutMs: 300_000 }) === null);
      return { code: result.exitCode, lines, progress };
    },
    compile(command: EsphomeCommand, ...more: string[]): Promise<Run> {
      const args = compileArgs(command, file, { skipBootloader: false, version: esphomeVersion });
      return this.run([...args, ...more] as unknown as EsphomeCommand);
    },
    /** All files but the copied and compiled sources. */
    async files(): Promise<string[]> {
      const all = await readdir(dataDir, { recursive: true, withFileTypes: true });
      return all
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name).slice(dataDir.length + 1))
        .filter((name) => !/src\/esphome\//.test(name))
        .toSorted();
    },
    async json(name: string): Promise<Record<string, unknown>> {
      return JSON.parse((await readFile(join(dataDir, name), 'utf8')).replaceAll(base, '<base>'));
    },
  };
}

const host = 'esphome:\n  name: kitchen\nhost:\nlogger:\n';

/** ESPHome's own lines, without what is measured. */
function logLines({ lines }: Run): string[] {
  return lines
    .filter((line) => /^(?:INFO|WARNING|ERROR) /.test(line))
    .filter((line) => !line.includes('precompiled header'))
    .map((line) => line.replace(/(config_hash|build_time_str)=.*/, '$1'));
}

test('A host build of the stand-in leaves the same files and says the same, cold and warm', async (t) => {
  const [real, stand] = await Promise.all([device(t, host), device(t, host)]);
  const cold = { real: await real.compile(esphome), stand: await stand.compile(standInEsphome) };
  assert.deepEqual([cold.stand.code, cold.real.code], [0, 0]);
  assert.deepEqual(logLines(cold.stand), logLines(cold.real));
  assert.deepEqual(cold.stand.progress, cold.real.progress);
  assert.deepEqual(await stand.files(), await real.files());

  const sidecar = 'storage/kitchen.yaml.json';
  assert.deepEqual(Object.entries(await stand.json(sidecar)), Object.entries(await real.json(sidecar)));
  for (const name of [
    'idedata/kitchen.json',
    'build/kitchen/build_info.json',
    'storage/kitchen.yaml.validated.json',
  ]) {
    assert.deepEqual(Object.keys(await stand.json(name)), Object.keys(await real.json(name)), name);
  }
  const program = 'build/kitchen/.pioenvs/kitchen/program';
  for (const name of [sidecar, 'storage/kitchen.yaml.validated.json', program]) {
    const modes = [stand, real].map(async ({ dataDir }) => (await stat(join(dataDir, name))).mode & 0o777);
    assert.equal(await modes[0], await modes[1], name);
  }

  const warm = { real: await real.compile(esphome), stand: await stand.compile(standInEsphome) };
  assert.deepEqual(logLines(warm.stand), logLines(warm.real));
  assert.equal(warm.real.lines.filter((line) => line === 'ninja: no work to do.').length, 1);
  for (const one of [real, stand]) await verifyBuild(one.paths, one.configuration);
});

test('The sidecars of the other platforms are those of the real one', async (t) => {
  const configurations = [
    'esphome:\n  name: kitchen\n  friendly_name: Kitchen\nesp32:\n  board: esp32dev\n  framework:\n    type: esp-idf\nlogger:\n',
    'esphome:\n  name: kitchen\nesp32:\n  board: esp32dev\nlogger:\nwifi:\n  ssid: a\n  password: bbbbbbbb\n',
    'esphome:\n  name: kitchen\nesp8266:\n  board: esp01_1m\nlogger:\n',
    'esphome:\n  name: kitchen\nrp2:\n  board: rpipicow\nlogger:\n',
    'esphome:\n  name: kitchen\nbk72xx:\n  board: cb2s\nlogger:\n',
  ];
  for (const yaml of configurations) {
    const [real, stand] = await Promise.all([device(t, yaml), device(t, yaml)]);
    assert.equal((await real.compile(esphome, '--only-generate')).code, 0, yaml);
    assert.equal((await stand.compile(standInEsphome)).code, 0, yaml);
    const [expected, got] = [
      await real.json('storage/kitchen.yaml.json'),
      await stand.json('storage/kitchen.yaml.json'),
    ];
    // What a platform loads by itself is not the stand-in's to know in full.
    const { loaded_integrations: loaded, ...rest } = got;
    assert.deepEqual(rest, { ...rest, ...without(expected, 'loaded_integrations') }, yaml);
    for (const name of loaded as string[])
      assert.ok((expected['loaded_integrations'] as string[]).includes(name), name);
    const project = (await real.files()).filter((name) => !/\.py$|lwip_override|custom_/.test(name));
    for (const name of project) assert.ok((await stand.files()).includes(name), `${yaml} ${name}`);
  }
});

function without(object: Record<string, unknown>, key: string): Record<string, unknown> {
  return Object.fromEntries(Object.entries(object).filter(([name]) => name !== key));
}

test('Both end with 2 for what is no configuration, and both say their version', async (t) => {
  for (const yaml of ['host:\n', 'esphome:\n  name: Bad Name\nhost:\n', 'esphome:\n  name: k\n']) {
    const [real, stand] = await Promise.all([device(t, yaml), device(t, yaml)]);
    const runs = [await real.compile(esphome), await stand.compile(standInEsphome)];
    for (const { code, lines } of runs)
      assert.deepEqual([code, lines.includes('Failed config')], [2, true], yaml);
    assert.deepEqual(
      [await readdir(real.base), await readdir(stand.base)],
      [
        ['config', 'home'],
        ['config', 'home'],
      ],
    );
  }
  const env = { PATH: path };
  assert.equal(await probeVersion(esphome, { env }), esphomeVersion);
  assert.equal(await probeVersion(standInEsphome, { env }), esphomeVersion);
});

test('The look before a compile reads the real output: inside passes, outside is refused, nothing is written', async (t) => {
  const cases: readonly (readonly [string, boolean])[] = [
    ['build/kitchen', true],
    ['my own/pläce', true],
    ["it''s #1", true],
    ['${up}/victim', false],
    ['/victim', false],
    ['.', false],
  ];
  for (const [place, passes] of cases) {
    const yaml = `substitutions:\n  up: ../..\nesphome:\n  name: kitchen\n  build_path: '${place}'\nhost:\n`;
    const at = await device(t, yaml);
    const look = precheck({ ...at.common, esphome, yaml: at.file, dataDir: at.dataDir, onLine: () => {} });
    if (passes) assert.equal(await look, null, place);
    else await assert.rejects(look, (error) => isReceiverError(error, 'WROTE_ELSEWHERE'), place);
    assert.deepEqual(await readdir(at.dataDir), ['config'], place);
  }
});

test('A real compile that is cancelled half-way leaves nothing running, and the next one succeeds', async (t) => {
  const at = await device(t, host);
  const cancel = new AbortController();
  const args = compileArgs(esphome, at.file, { skipBootloader: true, version: esphomeVersion });
  const result = await runCompile({
    ...at.common,
    ...{ command: args, signal: cancel.signal, timeoutMs: 300_000 },
    onLine: (line) => line.startsWith('[5/') && cancel.abort(),
  });
  assert.deepEqual([result.cancelled, result.exitCode, result.forced], [true, null, false]);
  const next = await at.compile(esphome);
  assert.equal(next.code, 0);
  assert.ok(next.progress.total < 28, 'it began again from nothing');
  await verifyBuild(at.paths, at.configuration);
});
