/**
 * The stand-in for ESPHome, compared with known facts about the real one; test/real uses the real one itself. Covers
 * src/testing/index.ts, src/testing/stand-in-esphome.js, src/testing/stand-in-build.js, src/testing/stand-in-node.js,
 * src/testing/stand-in-output.js, src/testing/stand-in-tools.js and src/testing/stand-in-tree.js.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { lstat, mkdir, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { standInEsphome } from '../../src/testing/index.js';
import { startChild, type Child } from '../support/child.js';
import { tempDir } from '../support/temp-dir.js';

const host = 'esphome:\n  name: kitchen\nhost:\nlogger:\n';

interface Run {
  readonly code: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

interface Bench {
  readonly dataDir: string;
  readonly configDir: string;
  readonly program: string;
  yaml(text: string, name?: string): Promise<string>;
  run(args: readonly string[], env?: Record<string, string>): Promise<Run>;
  start(args: readonly string[]): Promise<Child>;
}

async function bench(t: TestContext): Promise<Bench> {
  const base = await tempDir(t);
  const [dataDir, configDir] = [join(base, 'data'), join(base, 'config')];
  await mkdir(configDir);
  const env = { PATH: '/usr/bin:/bin', ESPHOME_DATA_DIR: dataDir, ESPHOME_NOGITIGNORE: '1' };
  const [node, script] = standInEsphome as readonly [string, string];
  return {
    ...{ dataDir, configDir, program: join(dataDir, 'build/kitchen/.pioenvs/kitchen/program') },
    async yaml(text, name = 'kitchen.yaml') {
      await writeFile(join(configDir, name), text);
      return join(configDir, name);
    },
    run: (args, more = {}) =>
      new Promise((resolve) => {
        execFile(node, [script, ...args], { env: { ...env, ...more } }, (error, stdout, stderr) => {
          resolve({ code: error === null ? 0 : (error.code ?? error.signal ?? 1), stdout, stderr });
        });
      }),
    start: (args) => startChild(t, [node, script, ...args], { env }),
  };
}

test('It prints its version, and that it is a stand-in', async (t) => {
  const { run, yaml } = await bench(t);
  assert.deepEqual(await run(['version']), { code: 0, stdout: 'Version: 2026.10.0\n', stderr: '' });
  assert.equal((await run(['--dashboard', '--version'])).stdout, 'Version: 2026.10.0\n');
  assert.match((await run(['compile', await yaml(host)])).stdout, /stand-in: no compiler runs here/);
});

test('A cold compile has the output and the files of a host build', async (t) => {
  const { run, yaml, dataDir, program } = await bench(t);
  const { code, stdout, stderr } = await run(['--dashboard', 'compile', await yaml(host)]);
  assert.equal(code, 0);
  assert.match(stderr, /^\\033\[32mINFO ESPHome 2026\.10\.0\\033\[0m\n/);
  assert.match(stderr, /INFO Core config or version changed, cleaning build files/);
  assert.match(stdout, /^\[1\/28\] PCH esphome_pch\.h\.gch\n(.*\n)*\[28\/28\] LINK program\n$/m);
  const sidecar = JSON.parse(await readFile(join(dataDir, 'storage/kitchen.yaml.json'), 'utf8'));
  assert.deepEqual(
    [sidecar.name, sidecar.esp_platform, sidecar.toolchain, sidecar.build_path, sidecar.firmware_bin_path],
    ['kitchen', 'HOST', 'host', join(dataDir, 'build/kitchen'), program],
  );
  assert.equal((await stat(join(dataDir, 'storage/kitchen.yaml.validated.json'))).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(join(dataDir, 'idedata')), ['kitchen.json']);
  assert.equal((await readdir(join(dataDir, 'build/kitchen'))).includes('.stand-in-running'), false);
});

test('The firmware can be started, prints its origin, and runs until it is killed', async (t) => {
  const { run, yaml, program } = await bench(t);
  await run(['compile', await yaml(host)]);
  const child = await startChild(t, [program]);
  await child.printed(/stand-in program kitchen \d+\n/);
  assert.equal(await child.stop(), 'SIGTERM');
});

test('An unchanged tree is not rebuilt; another configuration gives another program', async (t) => {
  const { run, yaml, program } = await bench(t);
  await run(['compile', await yaml(host)]);
  const before = await readFile(program, 'utf8');
  const { mtimeMs } = await stat(program);
  const again = await run(['compile', await yaml(`# only a comment\n${host}`)]);
  assert.match(again.stdout, /^ninja: no work to do\.$/m);
  assert.equal((await stat(program)).mtimeMs, mtimeMs);
  await run(['compile', await yaml(`${host}api:\n`)]);
  assert.notEqual(await readFile(program, 'utf8'), before);
});

test('`config` shows the build path and writes nothing; `clean` is refused', async (t) => {
  const { run, yaml, dataDir, configDir } = await bench(t);
  const file = await yaml('esphome: { name: kitchen, build_path: /somewhere/else }\nhost:\n');
  const shown = await run(['-l', 'ERROR', 'config', file], { ESPHOME_NOGITIGNORE: '' });
  assert.match(shown.stdout, /^esphome:\n {2}name: kitchen\n {2}build_path: \/somewhere\/else\n/);
  assert.equal(shown.stderr, '');
  await assert.rejects(stat(dataDir), { code: 'ENOENT' });
  assert.deepEqual(await readdir(configDir), ['kitchen.yaml']);
  assert.equal((await run(['clean', file])).code, 99);
  assert.equal((await run(['clean-all', configDir])).code, 99);
});

test('It deletes nothing outside its data directory, and ignores the marker of an add-on', async (t) => {
  const { run, yaml, dataDir } = await bench(t);
  for (const place of ['../victim', '/victim', '.']) {
    const { code } = await run([
      'compile',
      await yaml(`esphome: {name: k, build_path: "${place}"}\nhost:\n`),
    ]);
    assert.equal(code, 97, place);
  }
  const file = await yaml(host);
  const addOn = await run(['compile', file], { ESPHOME_IS_HA_ADDON: 'true' });
  assert.deepEqual([addOn.code, /\/data/.test(addOn.stderr)], [1, true]);
  await assert.rejects(stat(dataDir), { code: 'ENOENT' });
  assert.equal((await run(['compile', file], { ESPHOME_IS_HA_ADDON: 'off' })).code, 0);
});

test('Without a data directory in the environment it writes beside the YAML, as with the knob `elsewhere`', async (t) => {
  const { run, yaml, configDir, dataDir } = await bench(t);
  const file = await yaml(`# stand-in: elsewhere\n${host}`);
  assert.equal((await run(['compile', file], { ESPHOME_NOGITIGNORE: 'no' })).code, 0);
  assert.deepEqual((await readdir(configDir)).toSorted(), ['.esphome', '.gitignore', 'kitchen.yaml']);
  await assert.rejects(stat(dataDir), { code: 'ENOENT' });
});

test('An invalid configuration ends with 2 and writes nothing', async (t) => {
  const { run, yaml, dataDir } = await bench(t);
  for (const text of [
    'host:\n',
    'esphome: {name: "Bad Name"}\nhost:\n',
    'esphome: {name: k}\n',
    `# stand-in: exit=2\n${host}`,
  ]) {
    const { code, stdout } = await run(['compile', await yaml(text)]);
    assert.deepEqual([code, stdout.startsWith('Failed config\n')], [2, true], text);
  }
  assert.equal((await run(['compile', join(dataDir, 'gone.yaml')])).code, 2);
  await assert.rejects(stat(dataDir), { code: 'ENOENT' });
});

test('A failed step keeps the sidecar and the previous firmware', async (t) => {
  const { run, yaml, program, dataDir } = await bench(t);
  await run(['compile', await yaml(host)]);
  const before = await readFile(program, 'utf8');
  const { code, stdout, stderr } = await run(['compile', await yaml(`# stand-in: exit=1\n${host}api:\n`)]);
  assert.equal(code, 1);
  assert.match(stdout, /FAILED: [^\n]*\nninja: build stopped: subcommand failed\.\n$/);
  assert.match(stderr, /ERROR Host build failed\n$/);
  assert.equal(await readFile(program, 'utf8'), before);
  assert.ok((await stat(join(dataDir, 'storage/kitchen.yaml.json'))).isFile());
});

test('A second compile in the same build directory ends with 98; a killed one does not block', async (t) => {
  const { run, yaml, start, configDir } = await bench(t);
  const file = await yaml(`# stand-in: wait=${join(configDir, 'go')}\n${host}`);
  const first = await start(['compile', file]);
  await first.printed(/stand-in: waiting/);
  const second = await run(['compile', await yaml(host, 'other.yaml')]);
  assert.deepEqual([second.code, /another compile is at work/.test(second.stderr)], [98, true]);
  first.signal('SIGKILL');
  await first.ended;
  assert.equal((await run(['compile', await yaml(host, 'other.yaml')])).code, 0);
});

test("The trees of the other platforms have their firmware at the sidecar's path", async (t) => {
  const { run, yaml, dataDir } = await bench(t);
  const expected = {
    esp32: ['ESP32', 'esp-idf', 'build/n.bin', 'n.json'],
    esp8266: ['ESP8266', 'arduino', '.pioenvs/n/firmware.bin', 'n.arduino.json'],
    rp2: ['RP2', 'platformio', '.pioenvs/n/firmware.bin', 'n.json'],
    bk72xx: ['BK72XX', 'platformio', '.pioenvs/n/firmware.uf2', 'n.json'],
  };
  for (const [platform, [espPlatform, toolchain, firmware, idedata]] of Object.entries(expected)) {
    await rm(dataDir, { recursive: true, force: true });
    const file = await yaml(`# stand-in: platform=${platform}\nesphome:\n  name: n\nhost:\n`);
    assert.equal((await run(['compile', file])).code, 0, platform);
    const sidecar = JSON.parse(await readFile(join(dataDir, 'storage/kitchen.yaml.json'), 'utf8'));
    assert.deepEqual([sidecar.esp_platform, sidecar.toolchain], [espPlatform, toolchain]);
    assert.equal(sidecar.firmware_bin_path, join(dataDir, 'build/n', String(firmware)));
    assert.ok((await lstat(sidecar.firmware_bin_path)).isFile(), platform);
    assert.deepEqual(await readdir(join(dataDir, 'idedata')), [idedata]);
  }
});

test("The ELF is where the idedata or the tools look for it, and LibreTiny's list names files that can be downloaded", async (t) => {
  const { run, yaml, dataDir } = await bench(t);
  const buildOf = async (platform: string): Promise<string> => {
    await rm(dataDir, { recursive: true, force: true });
    const file = await yaml(`# stand-in: platform=${platform}\nesphome:\n  name: n\nhost:\n`);
    assert.equal((await run(['compile', file])).code, 0, platform);
    return join(dataDir, 'build/n/.pioenvs/n');
  };
  for (const platform of ['rp2', 'bk72xx', 'rtl87xx', 'ln882x']) {
    const build = await buildOf(platform);
    const { prog_path: program } = JSON.parse(await readFile(join(dataDir, 'idedata/n.json'), 'utf8'));
    assert.ok((await lstat(program)).isFile(), program);
    if (platform === 'rp2') continue;
    const list = JSON.parse(await readFile(join(build, 'firmware.json'), 'utf8')) as Record<
      string,
      unknown
    >[];
    assert.deepEqual(Object.keys(list[0] ?? {}), ['title', 'description', 'filename', 'offset', 'public']);
    const offered = list.filter((output) => output['public']).map((output) => String(output['filename']));
    assert.ok(offered.length > 0 && offered.length < list.length);
    for (const name of offered) assert.ok((await lstat(join(build, name))).isFile(), name);
  }
  assert.ok((await lstat(join(await buildOf('nrf52'), 'zephyr/zephyr/zephyr.elf'))).isFile());
});

test('A build without bootloader has neither a bootloader nor a factory image', async (t) => {
  const { run, yaml, dataDir } = await bench(t);
  const file = await yaml('esphome:\n  name: n\nesp32:\n');
  assert.equal((await run(['--dashboard', 'compile', file, '--skip-bootloader'])).code, 0);
  const files = await readdir(join(dataDir, 'build/n/build'));
  assert.deepEqual([files.includes('firmware.factory.bin'), files.includes('bootloader')], [false, false]);
  assert.ok(files.includes('firmware.ota.bin'));
});
