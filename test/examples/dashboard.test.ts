/** The example dashboard as its reader starts it. What it shows it has compared by itself; here it must have ended well. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdir, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { startChild } from '../support/child.js';
import { tempDir } from '../support/temp-dir.js';

const main = fileURLToPath(new URL('../../examples/dashboard/main.ts', import.meta.url));
const command = [process.execPath, '--import', 'tsx', main] as const;
const deadlineMs = 60_000;

test('The dashboard shows its own devices and a peer’s build, downloads, archives, deletes, and cleans up', async (t) => {
  const temporary = await tempDir(t);
  // No ESPHome of this machine is to be found, and the variable that moves local builds must not move these.
  const env = { PATH: temporary, TMPDIR: temporary, ESPHOME_DATA_DIR: join(temporary, 'dashboard-data') };
  const child = await startChild(t, [...command, '--once'], { env });
  const code = await child.ended;
  const output = child.output();

  assert.equal(code, 0, output);
  assert.match(output, /^Compiler: the stand-in/m);
  assert.match(output, /^DEVICE +OF +ESPHOME +CONFIG HASH +SIZE +BINARIES$/m);
  assert.match(output, /^Kitchen +this dashboard +2026\.10\.0 +0x[0-9a-f]{8} +\d+ B +program$/m);
  assert.match(output, /^Porch +example-peer\S+ +2026\.10\.0 +0x[0-9a-f]{8} +\d+ B +program$/m);
  assert.equal(
    output.match(/^garage\.yaml +this dashboard .*the sidecar of the build is missing$/gm)?.length,
    2,
  );
  assert.equal(output.match(/^downloaded .*\n +\d+ B, the file that the compiler made$/gm)?.length, 2);
  assert.match(output, /^refused .*etc\/passwd: 400$/m);
  assert.match(output, /^refused .*secrets\.yaml: 404$/m);
  assert.match(output, /^archive\/ holds kitchen\.yaml$/m);
  assert.ok(!output.includes(temporary), output);
  assert.deepEqual(
    (await readdir(temporary)).filter((name) => name.startsWith('dashboard-')),
    [],
  );
});

test('Serving, the dashboard lets nobody in without its password, escapes names, and ends well by SIGINT', async (t) => {
  const configDir = await tempDir(t);
  await writeFile(join(configDir, '<b>lamp.yaml'), '');
  const env = { ...process.env, DASHBOARD_PASSWORD: 'known' };
  const child = await startChild(t, [...command, configDir, '--port', '0'], { env });
  const [, url = ''] = await child.printed(/^(http:\S+) shows/m, { deadlineMs });
  const headers = { authorization: `Basic ${Buffer.from('anyone:known').toString('base64')}` };

  for (const wrong of ['anyone:other', 'known', 'known:']) {
    const authorization = `Basic ${Buffer.from(wrong).toString('base64')}`;
    assert.equal((await fetch(url, { headers: { authorization } })).status, 401, wrong);
  }
  const stranger = await fetch(url);
  assert.equal(stranger.status, 401);
  assert.match(stranger.headers.get('www-authenticate') ?? '', /^Basic /);
  const page = await fetch(url, { headers });
  assert.match(page.headers.get('content-security-policy') ?? '', /default-src 'none'/);
  assert.equal(page.headers.get('referrer-policy'), 'same-origin', 'or its own forms are refused');
  const text = await page.text();
  assert.match(text, /&lt;b&gt;lamp\.yaml/);
  assert.doesNotMatch(text, /<b>/);

  const device = new URLSearchParams({ configuration: '<b>lamp.yaml' }).toString();
  const post = (more: Record<string, string>): Promise<Response> =>
    fetch(`${url}/delete?${device}`, {
      method: 'POST',
      headers: { ...headers, ...more },
      redirect: 'manual',
    });
  for (const foreign of [{ 'sec-fetch-site': 'cross-site' }, { origin: 'https://evil.example' }]) {
    assert.equal((await post(foreign)).status, 403);
  }
  assert.ok((await readdir(configDir)).includes('<b>lamp.yaml'));
  assert.equal((await post({ origin: url })).status, 302);
  assert.ok(!(await readdir(configDir)).includes('<b>lamp.yaml'));

  // A browser that keeps its connection must not keep the server.
  const idle = createConnection(Number(new URL(url).port), '127.0.0.1');
  t.after(() => void idle.destroy());
  idle.on('error', () => {});
  await once(idle, 'connect');
  child.signal('SIGINT');
  assert.equal(await child.ended, 0, child.output());
});
