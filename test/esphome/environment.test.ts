import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createEnvironment } from '../../src/esphome/environment.js';
import { createPaths } from '../../src/paths/index.js';
import { exampleId } from '../support/hostile.js';

const paths = createPaths({ configDir: '/config' });
const subtree = `/config/.esphome/.remote_builds/${exampleId}/kitchen`;
const remote = `.esphome/.remote_builds/${exampleId}/kitchen/config/kitchen.yaml`;

const hostEnvironment = {
  PATH: '/usr/bin',
  HOME: '/root',
  TZ: 'Europe/Berlin',
  ESPHOME_IS_HA_ADDON: '1',
  ESPHOME_DATA_DIR: '/data',
  ESPHOME_BUILD_PATH: '/elsewhere',
  ESPHOME_DEFAULT_COMPILE_PROCESS_LIMIT: '',
  IDF_PATH: '/old/idf',
  PLATFORMIO_LIBDEPS_DIR: '/libs',
  NINJA_STATUS: '[x]',
  CC: 'clang',
  SUPERVISOR_TOKEN: 'secret-token',
  AWS_SECRET_ACCESS_KEY: 'secret-key',
  https_proxy: 'http://user:secret@proxy:3128',
  http_proxy: 'http://proxy:3128',
  EMPTY: undefined,
};

test("a local configuration keeps the host's environment unchanged", () => {
  const compose = createEnvironment({ paths, environment: hostEnvironment });
  const { EMPTY: _, ...defined } = hostEnvironment;
  assert.deepEqual(compose('kitchen.yaml'), defined);
});

test("a remote configuration is pinned to its subtree and sees none of the host's secrets", () => {
  const environment = createEnvironment({ paths, environment: hostEnvironment })(remote);
  assert.equal(environment['ESPHOME_DATA_DIR'], subtree);
  assert.equal(environment['PATH'], '/usr/bin');
  assert.equal(environment['TZ'], 'Europe/Berlin');
  assert.equal(environment['http_proxy'], 'http://proxy:3128');
  assert.equal(environment['ESPHOME_NOGITIGNORE'], '1');
  assert.ok(!JSON.stringify(environment).includes('secret'));
  for (const name of [
    'ESPHOME_IS_HA_ADDON',
    'ESPHOME_BUILD_PATH',
    'IDF_PATH',
    'PLATFORMIO_LIBDEPS_DIR',
    'NINJA_STATUS',
    'CC',
    'ESPHOME_DEFAULT_COMPILE_PROCESS_LIMIT',
    'https_proxy',
  ]) {
    assert.ok(!(name in environment), name);
  }
});

test('the same input gives the same bytes, in any order of the host’s variables', () => {
  const reversed = Object.fromEntries(Object.entries(hostEnvironment).toReversed());
  const first = JSON.stringify(createEnvironment({ paths, environment: hostEnvironment })(remote));
  assert.equal(JSON.stringify(createEnvironment({ paths, environment: reversed })(remote)), first);
});

test('tools are shared: two devices differ only in their data and temporary directories', () => {
  const compose = createEnvironment({ paths, environment: hostEnvironment });
  const one = compose(remote);
  const two = compose(remote.replaceAll('kitchen', 'hall'));
  const differing = Object.keys(one).filter((name) => one[name] !== two[name]);
  assert.deepEqual(differing, ['ESPHOME_DATA_DIR', 'TMPDIR']);
});

test('a variable that the operator names is passed on, even a proxy with credentials', () => {
  const compose = createEnvironment({
    paths,
    environment: hostEnvironment,
    passEnvironment: ['SUPERVISOR_TOKEN', 'https_proxy'],
  });
  assert.equal(compose(remote)['SUPERVISOR_TOKEN'], 'secret-token');
  assert.equal(compose(remote)['https_proxy'], 'http://user:secret@proxy:3128');
});

test("builds use the operator's Git configuration for them, never the account's, and Git asks no questions", () => {
  const environment = {
    ...hostEnvironment,
    GIT_CONFIG_GLOBAL: '/home/host/.gitconfig',
    GIT_SSH_COMMAND: 'ssh -i /home/host/key',
  };
  const git = (gitConfig?: string): string[] =>
    Object.entries(createEnvironment({ paths, environment, gitConfig })(remote))
      .filter(([name]) => name.startsWith('GIT_') && name !== 'GIT_SSL_CAINFO')
      .map(([name, value]) => `${name}=${value}`);
  assert.deepEqual(git(), ['GIT_TERMINAL_PROMPT=0']);
  assert.deepEqual(git('/etc/receiver/gitconfig'), [
    'GIT_CONFIG_GLOBAL=/etc/receiver/gitconfig',
    'GIT_TERMINAL_PROMPT=0',
  ]);
});

test("an operator's own limit of compilers wins over ours, and one that would break every build is left out", () => {
  const limits = (host: Record<string, string>, compilers: number | null): string[] =>
    Object.entries(createEnvironment({ paths, environment: host, compilers })(remote))
      .filter(([name]) => /PROCESS_LIMIT|BUILD_JOBS/.test(name))
      .map(([name, value]) => `${name}=${value}`);
  const limit = 'ESPHOME_DEFAULT_COMPILE_PROCESS_LIMIT';
  assert.deepEqual(limits({}, null), []);
  assert.deepEqual(limits({}, 4), ['IDF_PY_BUILD_JOBS=4']);
  assert.deepEqual(limits({ IDF_PY_BUILD_JOBS: '2' }, 4), ['IDF_PY_BUILD_JOBS=2']);
  assert.deepEqual(limits({ [limit]: '1' }, 4), [`${limit}=1`, 'IDF_PY_BUILD_JOBS=4']);
  for (const broken of ['', '0', 'x', '1.5', '-1', ' 2', '99999']) {
    assert.deepEqual(
      limits({ [limit]: broken, IDF_PY_BUILD_JOBS: broken }, 4),
      ['IDF_PY_BUILD_JOBS=4'],
      broken,
    );
  }
});

test('a value with a NUL or a line end is refused by name, without its content', () => {
  for (const value of ['/bin\n/evil', '/bin\0']) {
    const compose = createEnvironment({ paths, environment: { PATH: value } });
    assert.throws(
      () => compose(remote),
      (error: Error) => error.message.includes('PATH') && !error.message.includes('evil'),
    );
  }
});

test('a host without a PATH gives its builds the default one', () => {
  assert.match(createEnvironment({ paths, environment: {} })(remote)['PATH'] ?? '', /\/usr\/bin/);
});

test('a traversal-shaped configuration gets no environment', () => {
  assert.throws(() => createEnvironment({ paths, environment: hostEnvironment })('../x.yaml'), {
    code: 'TRAVERSAL',
  });
});
