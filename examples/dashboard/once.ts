/**
 * The self-test of the example: two devices of the dashboard, one of them compiled, and a build of a peer. It talks to
 * the dashboard over HTTP as a browser does, and prints what a person would see.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { dashboardId, deviceFromFile } from 'koa-esphome-receiver';
import { compile, findCompiler } from './compile.js';
import { startDashboard, type Dashboard } from './dashboard.js';
import type { Device } from './devices.js';
import { sizeOf } from './page.js';

const peer = dashboardId('example-peer-of-this-dashboard');

/** Throws if any check fails. Leaves nothing behind. */
export async function showOnce(): Promise<void> {
  const configDir = await mkdtemp(join(tmpdir(), 'dashboard-'));
  const password = randomBytes(9).toString('base64url');
  // Local builds stay in this directory, whatever the shell has set.
  const environment = { ...process.env, ESPHOME_DATA_DIR: undefined, ESPHOME_IS_HA_ADDON: undefined };
  try {
    const dashboard = await startDashboard({ password, port: 0, receiver: { configDir, environment } });
    try {
      await show(dashboard, password);
    } finally {
      await dashboard.close();
    }
  } finally {
    await rm(configDir, { recursive: true, force: true });
  }
}

async function show({ url, receiver }: Dashboard, password: string): Promise<void> {
  const { paths } = receiver;
  const compiler = await findCompiler();
  console.log(`Compiler: ${compiler.name}\n`);
  const porch = paths.formatConfiguration(
    { dashboardId: peer, device: deviceFromFile('porch.yaml') },
    'porch.yaml',
  );
  for (const configuration of ['garage.yaml', 'kitchen.yaml', porch]) {
    await writeConfiguration(paths.resolveConfigPath(configuration));
  }
  const secrets = join(paths.configDir, 'secrets.yaml');
  await writeFile(secrets, 'wifi_password: "not to be shown"\n');
  const programs = new Map<string, string>();
  for (const configuration of ['kitchen.yaml', porch]) {
    programs.set(configuration, await compile(compiler, receiver, configuration));
  }

  const headers = { authorization: `Basic ${Buffer.from(`operator:${password}`).toString('base64')}` };
  const ask = (path: string, query: Record<string, string> = {}, init?: RequestInit): Promise<Response> =>
    fetch(`${url}${path}?${new URLSearchParams(query).toString()}`, { headers, redirect: 'manual', ...init });
  const list = async (): Promise<readonly Device[]> => (await (await ask('/devices')).json()) as Device[];

  console.log(tableOf(await list()));
  const page = await (await ask('/')).text();
  for (const device of ['garage', 'Kitchen', 'Porch'])
    expect(page.includes(device), `${device} is on the page`);
  for (const [configuration, program] of programs) {
    const answer = await ask('/download.bin', { configuration, file: 'program' });
    const bytes = Buffer.from(await answer.arrayBuffer());
    expect(bytes.equals(await readFile(program)), `${configuration}: the download is the compiled file`);
    console.log(
      `downloaded  ${configuration}\n            ${sizeOf(bytes.length)}, the file that the compiler made`,
    );
  }
  for (const configuration of ['../../etc/passwd', 'secrets.yaml']) {
    const { status } = await ask('/delete', { configuration }, { method: 'POST' });
    expect(status === 400 || status === 404, `${configuration} is refused`);
    console.log(`refused     to delete ${configuration}: ${status}`);
  }
  expect(await isThere(secrets), 'secrets.yaml is kept');
  for (const path of ['/', '/esphome-receiver/state']) {
    expect((await ask(path)).ok, `the operator may see ${path}`);
    expect((await ask(path, {}, { headers: {} })).status === 401, `a stranger may not see ${path}`);
  }

  for (const [route, configuration] of [
    ['archive', 'kitchen.yaml'],
    ['delete', porch],
  ] as const) {
    const { status } = await ask(`/${route}`, { configuration }, { method: 'POST' });
    expect(status === 302, `${route} answers with the list`);
    console.log(`${route}d${' '.repeat(11 - route.length)}${configuration}`);
  }
  const archived = await readdir(join(paths.configDir, 'archive'));
  const left = await list();
  console.log(`\n${tableOf(left)}\narchive/ holds ${archived.join(', ')}`);
  expect(archived.join() === 'kitchen.yaml' && left.length === 1, 'one device is left and one is archived');
  for (const program of programs.values()) expect(!(await isThere(program)), 'the builds are gone');
}

async function writeConfiguration(file: string): Promise<void> {
  const stem = /([a-z]+)\.yaml$/.exec(file)?.[1] ?? '';
  const title = stem.charAt(0).toUpperCase() + stem.slice(1);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, `esphome:\n  name: ${stem}\n  friendly_name: ${title}\n\nhost:\n\nlogger:\n`);
}

async function isThere(file: string): Promise<boolean> {
  return readFile(file).then(
    () => true,
    () => false,
  );
}

function expect(isSo: boolean, what: string): void {
  if (!isSo) throw new Error(`check failed: ${what}`);
}

function tableOf(devices: readonly Device[]): string {
  const rows = devices.map(({ name, peer: owner, esphomeVersion, configHash, bytes, files, problems }) => [
    name,
    owner ?? 'this dashboard',
    esphomeVersion ?? '-',
    configHash ?? '-',
    bytes === null ? '-' : sizeOf(bytes),
    files.map((file) => file.name).join(', ') || problems.join('; '),
  ]);
  const lines = [['DEVICE', 'OF', 'ESPHOME', 'CONFIG HASH', 'SIZE', 'BINARIES'], ...rows];
  const widths = [0, 1, 2, 3, 4].map((column) =>
    Math.max(...lines.map((line) => (line[column] ?? '').length)),
  );
  return `${lines
    .map((line) => line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  '))
    .join('\n')}\n`;
}
