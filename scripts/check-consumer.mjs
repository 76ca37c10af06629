/**
 * Installs the packed package into projects of a consumer's and compiles and runs them: NodeNext and Bundler, strict, with
 * `skipLibCheck: false` and without any types of koa-websocket or ws; ESM and CommonJS; Koa 3 and Koa 2. The accident that
 * this prevents: types that are right here and `any`, or an error, for everybody else.
 *
 *     node scripts/check-consumer.mjs TARBALL
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const manifest = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));

/** What must compile, and on the lines after `@ts-expect-error`, what must not. */
const program = `import Koa from 'koa';
import { createReceiver, isReceiverError, type JobView, type Receiver } from 'koa-esphome-receiver';
import { createPaths } from 'koa-esphome-receiver/paths';
import { createOffloader, dial, loadOffloaderIdentity } from 'koa-esphome-receiver/offloader';
import { standInEsphome } from 'koa-esphome-receiver/testing';

type Exact<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

export async function host(configDir: string): Promise<Receiver> {
  const app = new Koa();
  const receiver = await createReceiver({ configDir, esphome: standInEsphome, authorize: (ctx) => ctx.ip === '127.0.0.1' });
  receiver.mount(app, { peerLink: false });
  app.use(async (ctx) => {
    const isTyped: Exact<Awaited<ReturnType<typeof ctx.esphomePaths.buildSize>>, unknown> = false;
    ctx.body = [isTyped, await ctx.esphomePaths.buildSize('kitchen.yaml')];
    // @ts-expect-error: not a function of the hook
    await ctx.esphomePaths.buildSizes('kitchen.yaml');
  });
  const jobs: readonly JobView[] = receiver.jobs.list();
  // @ts-expect-error: a field of the record inside
  void jobs[0]?.resultKey;
  // @ts-expect-error: configDir is required
  void createReceiver({});
  // @ts-expect-error: slots is a number
  void createReceiver({ configDir, slots: '3' });
  return receiver;
}

/** The package must not add to the host's own contexts anything but \`esphomePaths\`. */
export function contextOf(context: Omit<Koa.Context, 'websocket'>): Koa.Context {
  return context as Koa.Context & typeof context;
}

export async function client(directory: string): Promise<string> {
  const identity = await loadOffloaderIdentity(directory);
  const offloader = createOffloader({ identity, connect: () => dial({ host: '127.0.0.1', port: 6055 }), label: 'x' });
  try {
    return (await offloader.preview()).pin;
  } catch (error) {
    return isReceiverError(error, 'PROTOCOL') ? error.code : createPaths({ configDir: directory }).resolveDataDir('a.yaml');
  }
}
`;

const compilerOptions = {
  ...{ strict: true, skipLibCheck: false, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true },
  ...{ target: 'es2022', lib: ['es2023'], types: ['node'], noEmit: true, esModuleInterop: true },
};

const run = `const { createReceiver } = receiverPackage;
const { default: Koa } = await import('koa');
const { mkdtempSync, rmSync } = await import('node:fs');
const configDir = mkdtempSync((await import('node:os')).tmpdir() + '/consumer-');
const app = new Koa();
const receiver = await createReceiver({ configDir, esphome: 'esphome', provisionVersions: false });
receiver.mount(app);
const server = app.listen(0, '127.0.0.1');
await new Promise((resolve) => server.once('listening', resolve));
const answer = await fetch('http://127.0.0.1:' + server.address().port + '/esphome-receiver/state');
const { pin } = await answer.json();
if (pin !== receiver.pin) throw new Error('the state has no pin: ' + answer.status);
await receiver.close();
server.close();
server.closeAllConnections();
rmSync(configDir, { recursive: true });
`;

/** @param {string} tarball @param {string} koa the folder of node_modules that is used as koa */
function project(tarball, koa) {
  const directory = mkdtempSync(join(tmpdir(), 'consumer-'));
  const modules = join(directory, 'node_modules');
  const own = join(modules, manifest.name);
  mkdirSync(own, { recursive: true });
  execFileSync('tar', ['-xzf', tarball, '-C', own, '--strip-components=1']);
  for (const name of [...Object.keys(manifest.dependencies), '@types/koa', '@types/node'])
    link(modules, name, name);
  link(modules, 'koa', koa);
  writeFileSync(join(directory, 'package.json'), JSON.stringify({ type: 'module', private: true }));
  return directory;
}

/** @param {string} modules @param {string} name @param {string} from */
function link(modules, name, from) {
  mkdirSync(dirname(join(modules, name)), { recursive: true });
  symlinkSync(join(root, 'node_modules', from), join(modules, name));
}

/** @param {string} directory @param {string} module @param {string} moduleResolution */
function compile(directory, module, moduleResolution) {
  writeFileSync(join(directory, 'program.ts'), program);
  const config = { compilerOptions: { ...compilerOptions, module, moduleResolution }, files: ['program.ts'] };
  writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify(config));
  execFileSync(join(root, 'node_modules/.bin/tsc'), ['-p', directory], { stdio: 'inherit' });
}

/** @param {string} directory @param {string} file @param {string} start how the package is loaded */
function execute(directory, file, start) {
  writeFileSync(
    join(directory, file),
    file.endsWith('.cjs') ? `${start}\n(async () => {${run}})();` : start + run,
  );
  execFileSync(process.execPath, ['--no-warnings', file], { cwd: directory, stdio: 'inherit' });
}

/** @param {string} tarball */
export function checkConsumers(tarball) {
  for (const koa of ['koa', 'koa2']) {
    const directory = project(tarball, koa);
    try {
      compile(directory, 'nodenext', 'nodenext');
      compile(directory, 'esnext', 'bundler');
      execute(directory, 'program.mjs', `import * as receiverPackage from '${manifest.name}';\n`);
      execute(directory, 'program.cjs', `const receiverPackage = require('${manifest.name}');`);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }
}
