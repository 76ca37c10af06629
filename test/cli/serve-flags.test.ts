/** What `serve` says before it serves: what builds depend on, what is missing, and what is wrong with its flags. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';

import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { event, serve, start } from './serve-child.js';

test('The banner names what builds depend on: ESPHome, Python, the number of builds, and the disk', async (t) => {
  const { child } = await serve(t);
  const [, facts = ''] = await child.printed(/^Builds with: (.*)$/m, { deadlineMs: 20_000 });
  const python = '(?:Python 3\\.1[2-4]\\.\\d+|no Python) for other releases';
  assert.match(
    facts,
    new RegExp(`^ESPHome 2026\\.10\\.0, ${python}, \\d+ builds? at a time, \\d+\\.\\d GB free$`),
  );
  const programs = await serve(t, '--json');
  const { esphome, slots, freeBytes } = await event(programs.child, 'listening');
  assert.equal(esphome, '2026.10.0');
  assert.ok(Number(slots) >= 1 && Number(freeBytes) > 0);
});

test('An ESPHome that does not run is reported before the banner, with its last line of output', async (t) => {
  const directory = await tempDir(t);
  const broken = join(directory, 'esphome');
  const script = '#!/bin/sh\necho "Traceback" >&2\necho "ModuleNotFoundError: no voluptuous" >&2\nexit 1\n';
  await writeFile(broken, script, { mode: 0o755 });
  for (const [flag, warned, banner] of [
    [
      '',
      /^Warning: the installed ESPHome does not run: "ModuleNotFoundError: no voluptuous"$/m,
      /^Builds with: an ESPHome that does not run, /m,
    ],
    [
      '--json',
      /^\{"event":"warning","message":".*no voluptuous.*$/m,
      /^\{"event":"listening".*"esphome":null/m,
    ],
  ] as const) {
    const words = [
      'serve',
      join(directory, 'new'),
      '--port',
      '0',
      '--host',
      '127.0.0.1',
      '--esphome',
      broken,
    ];
    const child = await start(t, ...words, ...(flag ? [flag] : []));
    await child.printed(banner, { deadlineMs: 20_000 });
    assert.match(child.output(), warned);
    assert.ok(child.output().search(warned) < child.output().search(banner));
    assert.equal(await child.stop(), 0);
  }
});

test('SIGTERM ends the server in good order while it probes a program that hangs', async (t) => {
  const directory = await tempDir(t);
  const hangs = join(directory, 'esphome');
  const asked = join(directory, 'asked');
  await writeFile(hangs, `#!/bin/sh\n: > '${asked}'\nexec sleep 600\n`, { mode: 0o755 });
  const words = ['serve', join(directory, 'new'), '--port', '0', '--host', '127.0.0.1', '--esphome', hangs];
  const child = await start(t, ...words);
  await child.printed(/info listening /, { deadlineMs: 20_000 });
  await waitFor(async () => (await readdir(directory)).includes('asked'), { what: 'the question' });
  assert.equal(await child.stop(), 0);
  assert.match(child.output(), /info receiver closed/);
  assert.doesNotMatch(child.output(), /^Listening/m);
});

test('An invalid command line exits with 2, a message and the way to the help, any other failed start with 1', async (t) => {
  for (const [words, code, text] of [
    [['serve', 'dir', '--colour'], 2, /--colour[^]*\nkoa-esphome-receiver serve --help lists all flags\n$/],
    [['dance'], 2, /^koa-esphome-receiver: unknown command "dance"\n\nUsage/],
    [[], 2, /^Usage/],
    [['serve'], 2, /one directory, got 0\nkoa-esphome-receiver serve --help lists all flags\n$/],
    [['serve', 'dir', '--port', '70000'], 2, /invalid --port: .* got 70000/],
    [['serve', 'dir', '--esphome', '/nope'], 1, /not a program/],
    [['serve', import.meta.filename], 2, /expected a directory, got a file \(.*\.ts\)\n/],
    [['serve', '/dev/null/x'], 1, /^koa-esphome-receiver: ENOTDIR[^\n]*\n$/],
  ] as const) {
    const child = await start(t, ...words);
    assert.equal(await child.ended, code, words.join(' '));
    assert.match(child.output(), text);
  }
});

test('An invalid --admin port, or one in use, exits with a message', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  for (const [wish, code, said] of [
    ['70000', 2, /invalid --admin: expected an integer from 0 to 65535, got 70000/],
    [String(port), 1, /cannot listen on 127\.0\.0\.1/],
  ] as const) {
    const { child } = await serve(t, '--admin', wish);
    assert.equal(await child.ended, code);
    assert.match(child.output(), said);
  }
});
