/**
 * What a build of each platform sends, before the judge that counts: the real Device Builder unpacks it into a
 * fresh dashboard, or a user's job fails there. What it must refuse is tried as well, so that its word is known to
 * mean something.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { access, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';

import { execa } from 'execa';

import { collectArtifacts, type BuildArtifacts } from '../../src/artifacts/collect.js';
import { packArtifacts } from '../../src/artifacts/pack.js';
import { createEnvironment } from '../../src/esphome/environment.js';
import { createPaths, dashboardId, deviceFromFile, type Configuration } from '../../src/paths/index.js';
import { exampleId } from '../support/hostile.js';
import { tempDir } from '../support/temp-dir.js';
import { crossBuilds, libreTinyList, type CrossBuild } from './cross-builds.js';
import { unpackAll, type Delivery, type Verdict } from './device-builder-unpack.js';
import { realEsphome } from './support.js';

const omissions = [
  ...crossBuilds.map((build) => ({ build, member: build.firmware, refusal: /its firmware binary/ })),
  // What we supply because ESPHome writes none.
  { build: named('host'), member: 'idedata.json', refusal: /required 'idedata.json' member/ },
  { build: named('host'), member: 'platformio.ini', refusal: /required 'platformio.ini' member/ },
  { build: named('nrf52-sdk'), member: 'idedata.json', refusal: /required 'idedata.json' member/ },
];

const base = await tempDir({ after });
const paths = createPaths({ configDir: join(base, 'receiver') });
const environmentOf = createEnvironment({ paths, environment: process.env });
const verdicts = new Map<string, Verdict>();

before(async () => {
  const waiting = crossBuilds.values();
  const generateSome = async (): Promise<void> => {
    for (const build of waiting) await generate(build);
  };
  await Promise.all([generateSome(), generateSome()]);
  const deliveries: Delivery[] = [];
  const deliver = async (build: CrossBuild, title: string, artifacts: BuildArtifacts): Promise<void> => {
    const archive = join(base, `${deliveries.length}.tar.gz`);
    await packArtifacts(artifacts, archive);
    const configDir = dashboardOf(title);
    deliveries.push({ title, archive, configDir, configuration: fileOf(build), component: build.component });
  };
  for (const build of crossBuilds) {
    await compile(build);
    const artifacts = await collectArtifacts({ paths, configuration: configurationOf(build) });
    await deliver(build, build.node, artifacts);
    for (const { member } of omissions.filter((omission) => omission.build === build)) {
      const members = artifacts.members.filter(({ name }) => name !== member);
      assert.equal(members.length, artifacts.members.length - 1, titleOf(build, member));
      await deliver(build, titleOf(build, member), { ...artifacts, members });
    }
  }
  for (const [title, verdict] of await unpackAll(deliveries)) verdicts.set(title, verdict);
});

for (const build of crossBuilds) {
  test(`Device Builder unpacks a build of ${build.node} and finds its firmware`, async () => {
    const { node, firmware, image, idedata, downloads, program: elf = 'firmware.elf' } = build;
    assert.deepEqual(verdicts.get(node), { refusal: null, downloads });

    const there = join(dashboardOf(node), '.esphome');
    const buildPath = join(there, 'build', node);
    const sidecar = await readJson(join(there, 'storage', `${fileOf(build)}.json`));
    assert.equal(sidecar['build_path'], buildPath);
    assert.equal(sidecar['firmware_bin_path'], join(buildPath, firmware));

    const output = (file: string): string => join(dirname(firmware), file);
    const sent = image === undefined ? firmware : output(image);
    assert.deepEqual(await readFile(join(buildPath, firmware)), await readFile(join(hereOf(build), sent)));
    for (const file of downloads.map(output)) {
      assert.deepEqual(await readFile(join(buildPath, file)), await readFile(join(hereOf(build), file)));
    }
    if (idedata !== undefined) {
      const { prog_path: program } = await readJson(join(there, 'idedata', `${node}${idedata}`));
      assert.equal(program, join(buildPath, output(elf)));
      await access(join(buildPath, output(elf)));
    }
    const validated = join('storage', `${fileOf(build)}.validated.json`);
    const dataDir = paths.resolveDataDir(configurationOf(build));
    assert.deepEqual(await readFile(join(there, validated)), await readFile(join(dataDir, validated)));
    const { mode } = await stat(join(buildPath, firmware));
    assert.equal((mode & 0o100) !== 0, node === 'host', 'only a program can be run');
  });
}

for (const { build, member, refusal } of omissions) {
  test(`Device Builder refuses a build of ${titleOf(build, member)}`, () => {
    assert.match(verdicts.get(titleOf(build, member))?.refusal ?? 'not refused', refusal);
  });
}

/** The real ESPHome checks and prepares a build: sidecar, project files, validated configuration. */
async function generate(build: CrossBuild): Promise<void> {
  const configuration = configurationOf(build);
  const path = paths.resolveConfigPath(configuration);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, `esphome: {name: ${build.node}}\nlogger:\n${build.yaml}\n`);
  const [esphome] = await realEsphome();
  const options = { env: environmentOf(configuration), extendEnv: false };
  await execa(esphome, ['compile', '--only-generate', path], options);
}

/** Does what no compiler here can: leaves the outputs of a build and its idedata. */
async function compile(build: CrossBuild): Promise<void> {
  const { node, noted, sidecar, firmware, outputs, idedata, program = 'firmware.elf' } = build;
  const dataDir = paths.resolveDataDir(configurationOf(build));
  const storagePath = join(dataDir, 'storage', `${fileOf(build)}.json`);
  const storage = await readJson(storagePath);
  assert.deepEqual([storage['esp_platform'], storage['toolchain']], noted);
  assert.equal(storage['firmware_bin_path'], join(hereOf(build), firmware));
  await writeFile(storagePath, JSON.stringify({ ...storage, ...sidecar }));

  const directory = join(hereOf(build), dirname(firmware));
  for (const file of outputs) {
    await mkdir(dirname(join(directory, file)), { recursive: true });
    await writeFile(join(directory, file), file === 'firmware.json' ? libreTinyList : randomBytes(70_001));
  }
  if (idedata === undefined) return;
  await mkdir(join(dataDir, 'idedata'), { recursive: true });
  await writeFile(
    join(dataDir, 'idedata', `${node}${idedata}`),
    JSON.stringify({ prog_path: join(directory, program) }),
  );
}

function named(node: string): CrossBuild {
  const build = crossBuilds.find((candidate) => candidate.node === node);
  assert.ok(build);
  return build;
}

function fileOf({ node }: CrossBuild): string {
  return `room-${node}.yaml`;
}

function titleOf({ node }: CrossBuild, member: string): string {
  return `${node} without ${member}`;
}

function configurationOf(build: CrossBuild): Configuration {
  const file = fileOf(build);
  return paths.formatConfiguration(
    { dashboardId: dashboardId(exampleId), device: deviceFromFile(file) },
    file,
  );
}

/** Where it lies on the receiver. */
function hereOf(build: CrossBuild): string {
  return join(paths.resolveDataDir(configurationOf(build)), 'build', build.node);
}

/** The client's configuration directory, a fresh one for each delivery. */
function dashboardOf(title: string): string {
  return join(base, 'dashboards', title.replaceAll(/[^a-z0-9-]/g, '_'));
}

async function readJson(path: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>;
}
