/**
 * The receiver of Device Builder, when `npm run test:real` has installed it: over the same compiler as ours, which it
 * takes for its own because it looks for `esphome` beside its interpreter.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, realpath, symlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { startChild } from '../../test/support/child.js';
import { freePort } from '../../test/support/free-port.js';
import type { Cleanups } from '../../test/support/temp-dir.js';
import { host } from './client.js';
import type { ServerAddress } from './server-process.js';

const deadlineMs = 60_000;

/** Its Python environment, or null when it is not installed. */
export async function findOriginal(): Promise<string | null> {
  const cache = process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache');
  const ready = join(cache, 'koa-esphome-receiver', 'device-builder-1.26.0', 'ready');
  return existsSync(ready) ? realpath(ready) : null;
}

/** `directory` is its own, and empty. */
export async function startOriginal(
  t: Cleanups,
  venv: string,
  { directory, compiler }: { readonly directory: string; readonly compiler: string },
): Promise<ServerAddress> {
  const [bin, config, home] = ['bin', 'config', 'home'].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  for (const place of [bin, config, home]) await mkdir(place);
  await symlink(join(venv, 'lib'), join(directory, 'lib'));
  await copyFile(join(venv, 'pyvenv.cfg'), join(directory, 'pyvenv.cfg'));
  const python = join(bin, 'python');
  await symlink(await realpath(join(venv, 'bin', 'python')), python);
  await copyFile(compiler, join(bin, 'esphome'));
  const words = ['--remote-build-only', '--allow-any-pairing-source', '--remote-build-host', host];
  const child = await startChild(
    t,
    [
      ...([python, '-m', 'esphome_device_builder', ...words] as const),
      ...['--remote-build-port', String(await freePort()), config],
    ],
    { env: { ...process.env, HOME: home, XDG_CACHE_HOME: join(home, '.cache') } },
  );
  const [, pairingKey = ''] = await child.printed(/^ +((?:[A-Z2-9]{4}-){3}[A-Z2-9]{4})$/m, { deadlineMs });
  const [, port, pin = ''] = await child.printed(
    /listening on 127\.0\.0\.1:(\d+) \(peer-link pin ([0-9a-f ]+)\)/,
  );
  return { port: Number(port), pin: pin.replaceAll(' ', ''), pairingKey, isSink: false };
}

const packScript = `
import sys, tarfile, time
start = time.perf_counter()
with tarfile.open(sys.argv[2], "w:gz") as tar:
    tar.add(sys.argv[1], "firmware.bin")
print((time.perf_counter() - start) * 1000)
`;

/** Milliseconds in which Python packs a file as the original does. */
export async function packAsOriginal(venv: string, file: string, firmware: Buffer): Promise<number> {
  await writeFile(file, firmware);
  const words = ['-c', packScript, file, `${file}.tar.gz`];
  const { stdout } = await promisify(execFile)(join(venv, 'bin', 'python'), words);
  return Number(stdout);
}
