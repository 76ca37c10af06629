/** The environment of a remote build, tried on the real ESPHome with a host that does its worst. */
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn } from 'node:child_process';
import { access, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { before, test, type TestContext } from 'node:test';
import { promisify } from 'node:util';

import { runCompile } from '../../src/compile/compile.js';
import { judge } from '../../src/compile/verdict.js';
import { createEnvironment } from '../../src/esphome/environment.js';
import { silentLog } from '../../src/log.js';
import { createPaths, dashboardId, deviceFromFile } from '../../src/paths/index.js';
import { exampleId } from '../support/hostile.js';
import { tempDir } from '../support/temp-dir.js';
import { realEsphome } from './support.js';

let esphome = '';
before(async () => {
  [esphome] = await realEsphome();
});

test("a host that is an add-on with a data directory of its own cannot move a peer's build", async (t) => {
  const base = await tempDir(t);
  const foreign = join(base, 'foreign');
  const paths = createPaths({ configDir: join(base, 'config') });
  const key = { dashboardId: dashboardId(exampleId), device: deviceFromFile('kitchen.yaml') };
  const configuration = paths.formatConfiguration(key, 'kitchen.yaml');
  const compose = createEnvironment({
    paths,
    environment: {
      PATH: process.env['PATH'],
      ESPHOME_IS_HA_ADDON: '1',
      ESPHOME_DATA_DIR: foreign,
      ESPHOME_BUILD_PATH: join(base, 'elsewhere'),
      SUPERVISOR_TOKEN: 'hunter2hunter2',
    },
  });
  const yaml = paths.resolveConfigPath(configuration);
  await mkdir(dirname(yaml), { recursive: true });
  await writeFile(
    yaml,
    'esphome: {name: node, comment: !env_var SUPERVISOR_TOKEN "not to be seen"}\nhost:\n',
  );

  execFileSync(esphome, ['compile', '--only-generate', yaml], {
    env: compose(configuration),
    stdio: 'ignore',
  });

  assert.ok((await stat(paths.resolveStoragePath(configuration))).isFile());
  assert.ok((await stat(paths.resolveBuildPath(configuration, { name: 'node' }))).isDirectory());
  const sidecar = await readFile(paths.resolveStoragePath(configuration), 'utf8');
  assert.match(sidecar, /not to be seen/);
  assert.doesNotMatch(sidecar, /hunter2/);
  for (const place of [foreign, join(base, 'elsewhere'), join(dirname(yaml), '.gitignore')]) {
    await assert.rejects(access(place), { code: 'ENOENT' });
  }
});

/** A Git server that wants a name and a password, with one repository that holds one component. */
async function privateGit(t: TestContext, base: string): Promise<{ url: string; requests: string[] }> {
  const work = join(base, 'work');
  const component = join(work, 'components', 'hello');
  await mkdir(component, { recursive: true });
  await writeFile(join(component, '__init__.py'), 'CONFIG_SCHEMA = lambda config: config\n');
  const git = (...args: string[]): void => {
    const author = ['-c', 'user.name=test', '-c', 'user.email=test@example.org'];
    execFileSync('git', [...author, ...args], { cwd: work, stdio: 'ignore' });
  };
  git('init', '--initial-branch=main');
  git('add', '.');
  git('commit', '--message=first');
  git('clone', '--bare', '.', join(base, 'private.git'));

  const requests: string[] = [];
  const server = createServer((request, response) => {
    const { authorization = '' } = request.headers;
    requests.push(authorization);
    if (authorization !== `Basic ${Buffer.from('builder:token').toString('base64')}`) {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="git"' }).end();
      return;
    }
    const { pathname, search } = new URL(request.url ?? '', 'http://localhost');
    const backend = spawn('git', ['http-backend'], {
      env: {
        ...{ PATH: process.env['PATH'], GIT_PROJECT_ROOT: base, GIT_HTTP_EXPORT_ALL: '1' },
        ...{ PATH_INFO: pathname, QUERY_STRING: search.slice(1), REQUEST_METHOD: request.method },
        CONTENT_TYPE: request.headers['content-type'],
        HTTP_CONTENT_ENCODING: request.headers['content-encoding'],
        GIT_PROTOCOL: String(request.headers['git-protocol'] ?? ''),
      },
    });
    request.pipe(backend.stdin);
    const chunks: Buffer[] = [];
    backend.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    backend.on('close', () => {
      const output = Buffer.concat(chunks);
      const end = output.indexOf('\r\n\r\n');
      for (const line of output.subarray(0, end).toString().split('\r\n')) {
        const [name = '', value = ''] = line.split(': ');
        if (name !== 'Status') response.setHeader(name, value);
      }
      response.end(output.subarray(end + 4));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, requests };
}

test("a private repository is fetched with the operator's Git configuration for builds, and not without it", async (t) => {
  const base = await tempDir(t);
  const { url, requests } = await privateGit(t, base);
  const paths = createPaths({ configDir: join(base, 'config') });
  const key = { dashboardId: dashboardId(exampleId), device: deviceFromFile('kitchen.yaml') };
  const configuration = paths.formatConfiguration(key, 'kitchen.yaml');
  const yaml = paths.resolveConfigPath(configuration);
  await mkdir(dirname(yaml), { recursive: true });
  const source = '{type: git, url: "https://git.invalid/private.git", ref: main}';
  await writeFile(
    yaml,
    `esphome: {name: node}\nhost:\nexternal_components:\n  - source: ${source}\n    components: [hello]\nhello:\n`,
  );
  const gitConfig = join(base, 'gitconfig');
  const credentials = join(base, 'credentials');
  await writeFile(credentials, `${url.replace('//', '//builder:token@').replace(/\/$/, '')}\n`);
  await writeFile(
    gitConfig,
    `[url "${url}"]\n\tinsteadOf = https://git.invalid/\n[credential]\n\thelper = store --file=${credentials}\n`,
  );
  const config = (file?: string): Promise<string> => {
    const environment = { PATH: process.env['PATH'] };
    const compose = createEnvironment({ paths, environment, gitConfig: file });
    return promisify(execFile)(esphome, ['config', yaml], { env: compose(configuration) }).then(
      ({ stdout }) => stdout,
      (error: { stdout: string; stderr: string }) => error.stdout + error.stderr,
    );
  };
  assert.match(await config(), /unable to access 'https:\/\/git\.invalid/);
  assert.deepEqual(requests, []);
  assert.match(await config(gitConfig), /^hello:/m);
  assert.ok(requests.length > 1);
});

const platforms = {
  rp2: 'rp2: {board: rpipicow}',
  rtl87xx: 'rtl87xx: {board: wr3}',
  nrf52: 'nrf52: {board: adafruit_feather_nrf52840, bootloader: adafruit_nrf52_sd140_v6}',
};

test('a failed download of tools is not reported as a fault of the configuration, on any platform', async (t) => {
  const offline = ['unshare', '--map-root-user', '--net'] as const;
  try {
    execFileSync(offline[0], [...offline.slice(1), 'true'], { stdio: 'ignore' });
  } catch {
    return t.skip('this account cannot make a network of its own');
  }
  const base = await tempDir(t);
  const paths = createPaths({ configDir: join(base, 'config') });
  const compose = createEnvironment({ paths, environment: { PATH: process.env['PATH'] } });
  const { signal } = new AbortController();
  const reasons = Object.entries(platforms).map(async ([platform, block]) => {
    const key = { dashboardId: dashboardId(exampleId), device: deviceFromFile(`${platform}.yaml`) };
    const configuration = paths.formatConfiguration(key, `${platform}.yaml`);
    const yaml = paths.resolveConfigPath(configuration);
    await mkdir(dirname(yaml), { recursive: true });
    await writeFile(yaml, `esphome: {name: ${platform}}\n${block}\n`);
    const cwd = paths.resolveDataDir(configuration);
    await mkdir(cwd, { recursive: true });
    let output = '';
    const result = await runCompile({
      ...{ command: [...offline, esphome, '--dashboard', 'compile', yaml], cwd, env: compose(configuration) },
      ...{ signal, leaseSignal: signal, timeoutMs: 500_000, log: silentLog },
      onLine: (line) => (output += line),
    });
    const failure = judge(result, { timeoutMs: 500_000 });
    assert.equal(failure?.reason, 'provision', output.slice(-2_000));
    assert.equal(result.marks.brokenTools, false);
  });
  await Promise.all(reasons);
});
