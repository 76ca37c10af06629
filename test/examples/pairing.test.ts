/** The pairing example as its reader starts it, with the stand-in for speed, and its page with names that strangers chose. */
import assert from 'node:assert/strict';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { startHost } from '../../examples/pairing/app.js';
import { createPerson } from '../../examples/pairing/person.js';
import { pinPictures, pinText } from '../../src/index.js';
import { createOffloader, dial, loadOffloaderIdentity, pinOf } from '../../src/koa/offloader.js';
import { standInEsphome } from '../../src/testing/index.js';
import { startChild } from '../support/child.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';

const fileOf = (name: string): string =>
  fileURLToPath(new URL(`../../examples/pairing/${name}`, import.meta.url));
const command = [process.execPath, '--import', 'tsx', fileOf('main.ts')] as const;
const compiler = ['--esphome', standInEsphome.join(' ')];
const deadlineMs = 60_000;
const password = 'known';

async function openHost(t: Cleanups) {
  const configDir = join(await tempDir(t), 'config');
  await mkdir(configDir);
  const receiver = { configDir, esphome: standInEsphome, provisionVersions: false };
  const host = await startHost({ password, port: 0, linkPort: 0, receiver });
  t.after(() => host.close());
  return { ...host, person: createPerson(host.url, password) };
}

/** Asks to be paired under that name, and tells its pin. */
async function ask(t: Cleanups, port: number, name: string): Promise<string> {
  const identity = await loadOffloaderIdentity(join(await tempDir(t), 'home'));
  const connect = () => dial({ host: '127.0.0.1', port });
  const offloader = createOffloader({ identity, connect, label: name, friendlyName: name });
  const { pin } = await offloader.preview();
  assert.equal(await offloader.requestPairing({ pin }), 'pending');
  return pinOf(identity.publicKey);
}

test('Two people pair, build and revoke, each sees what they must see, and nothing is left', async (t) => {
  const temporary = await tempDir(t);
  const env = { ...process.env, TMPDIR: temporary };
  const child = await startChild(t, [...command, '--once', ...compiler], { env });
  const code = await child.ended;
  const output = child.output();

  assert.equal(code, 0, output);
  assert.match(output, /^ +upstairs +\| Refused: the pairing window is closed\.$/m);
  assert.match(output, /^ +page +\| the window is open, [45]:\d\d left$/m);
  assert.equal(output.match(/the same on both screens, as pictures, words and in full/g)?.length, 2);
  assert.match(output, /^ +impostor +\| Refused: this dashboard is not approved\.$/m);
  assert.match(output, /^ +impostor +\| Refused: the server knows a different key for this dashboard id\.$/m);
  assert.match(output, /^ +page +\| refused without a comparison: /m);
  assert.match(output, /^ +page +\| refused with a different fingerprint: /m);
  assert.match(output, /^ +upstairs +\| Firmware: program, \d+ bytes$/m);
  assert.match(output, /^ +upstairs +\| Session ended: hung_up$/m);
  assert.match(output, /^ +upstairs +\| Reconnecting fails: /m);
  assert.deepEqual(
    (await readdir(temporary)).filter((name) => name.startsWith('pairing-')),
    [],
  );
});

test('Without --once the page stays up for a person after the other dashboard has gone, until Ctrl-C', async (t) => {
  const temporary = await tempDir(t);
  const ports = ['--port', '0', '--link-port', '0'];
  const env = { ...process.env, TMPDIR: temporary, DASHBOARD_PASSWORD: password };
  const child = await startChild(t, [...command, ...ports, ...compiler], { env });
  const [, url = ''] = await child.printed(/Page: (\S+)/, { deadlineMs });
  await child.printed(/The other dashboard has ended/, { deadlineMs });
  assert.equal((await createPerson(url, password).looks()).status, 200);
  child.signal('SIGINT');
  assert.equal(await child.ended, 0, child.output());
  assert.deepEqual(
    (await readdir(temporary)).filter((name) => name.startsWith('pairing-')),
    [],
  );
});

const hostile: readonly [what: string, name: string, shown: string][] = [
  [
    'a script',
    '<script src="//evil.example"></script>',
    '&lt;script src=&quot;//evil.example&quot;&gt;&lt;/script&gt;',
  ],
  ['the end of an attribute', `x" autofocus onfocus='go()`, 'x&quot; autofocus onfocus=&#39;go()'],
  ['the end of the form', '</bdi></form><form action="/window/close">', '&lt;/bdi&gt;&lt;/form&gt;'],
  ['an entity', '&lt;b&gt;', '&amp;lt;b&amp;gt;'],
  ['a direction mark', 'Home\u202etxe\u2066.\u200f', 'Hometxe.'],
  ['right-to-left letters', '\u05d1\u05d9\u05ea 3 approved', '\u05d1\u05d9\u05ea 3 approved'],
];

for (const [what, name, shown] of hostile) {
  test(`A name that holds ${what} is text on the page, as a request and as a paired dashboard`, async (t) => {
    const { receiver, linkPort, person } = await openHost(t);
    receiver.pairing.open();
    await ask(t, linkPort, name);
    const asking = await person.looks();
    const [request] = asking.requests;
    const done = await person.presses(request?.part ?? '', 'Approve', { compared: 'yes' });
    assert.equal(done.paired.length, 1);
    for (const { page } of [asking, done]) {
      assert.ok(page.includes(`<bdi>${shown}`), page);
      assert.deepEqual(page.match(/<script[^>]*>/g), ['<script src="/page.js" defer>']);
      assert.doesNotMatch(page, /<[^>]*\s(on\w+|style|autofocus)=/);
      assert.doesNotMatch(page, /[\p{Cf}\u2028\u2029]/u);
    }
    assert.equal(receiver.pairing.closesInMs() > 0, true);
  });
}

test('The page shows the receiver and each request as pictures, words and in full, and what stays of the window', async (t) => {
  const { receiver, linkPort, person } = await openHost(t);
  assert.equal((await person.looks()).left, undefined);
  const { left } = await person.presses((await person.looks()).page, 'Open the window');
  assert.match(left ?? '', /^(5:00|4:5\d)$/);
  const pins = [await ask(t, linkPort, 'One'), await ask(t, linkPort, '')];
  const { own, requests, page } = await person.looks();
  assert.equal(requests.length, 2);
  assert.match(requests[1]?.text ?? '', /^A dashboard without a name requests pairing/);
  for (const [pin, card] of [
    [receiver.pin, own] as const,
    ...pins.map((each, n) => [each, requests[n]] as const),
  ]) {
    const pictures = pinPictures(pin);
    assert.equal(card?.pictures, pictures.map(({ emoji }) => emoji).join(' '));
    assert.equal(card?.words, pictures.map(({ name }) => name).join(', '));
    assert.equal(card?.hex, pinText(pin));
  }
  const closed = await person.presses(page, 'Close');
  assert.deepEqual([closed.left, closed.requests], [undefined, []]);
});

test('An approval needs a look and the pin that was shown, and what is gone is said', async (t) => {
  const { receiver, linkPort, person } = await openHost(t);
  receiver.pairing.open();
  await ask(t, linkPort, 'One');
  const { part = '' } = (await person.looks()).requests[0] ?? {};
  for (const [fields, status] of [
    [{}, 409],
    [{ compared: 'yes', pin: receiver.pin }, 409],
    [{ compared: 'yes', pin: '' }, 409],
    [{ compared: 'yes', id: '../../x' }, 400],
  ] as const) {
    const seen = await person.presses(part, 'Approve', fields);
    assert.deepEqual([seen.status, seen.paired.length, seen.requests.length], [status, 0, 1]);
    assert.notEqual(seen.alert, undefined);
  }
  assert.deepEqual((await person.presses(part, 'Reject')).requests, []);
  assert.equal((await person.presses(part, 'Reject')).alert, 'The request no longer exists.');
  assert.equal((await person.presses(part, 'Approve', { compared: 'yes' })).status, 409);
});

test('The page tells when a dashboard was paired', async (t) => {
  const { receiver, linkPort, person } = await openHost(t);
  receiver.pairing.open();
  const before = Date.now() - 1_000;
  await ask(t, linkPort, 'One');
  const { part = '' } = (await person.looks()).requests[0] ?? {};
  const { page } = await person.presses(part, 'Approve', { compared: 'yes' });
  const pairedAt = Date.parse(/<time datetime="([^"]+)">/.exec(page)?.[1] ?? '');
  assert.ok(pairedAt >= before && pairedAt <= Date.now(), page);
});

test('Only the operator may see or press anything, only from the page itself, and nothing inline may run', async (t) => {
  const { url, receiver } = await openHost(t);
  const authorization = `Basic ${Buffer.from(`operator:${password}`).toString('base64')}`;
  for (const path of ['', 'page.js', 'page.css']) {
    assert.equal((await fetch(`${url}${path}`)).status, 401, path);
    const answer = await fetch(`${url}${path}`, { headers: { authorization } });
    const policy = answer.headers.get('content-security-policy') ?? '';
    assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';/);
    assert.doesNotMatch(policy, /unsafe|\*/);
    assert.equal(answer.headers.get('referrer-policy'), 'same-origin', 'or its own forms are refused');
    assert.equal(await answer.text().then((text) => text.length > 500), true);
  }
  const press = async (headers: Record<string, string>): Promise<number> =>
    (await fetch(`${url}window/open`, { method: 'POST', headers, redirect: 'manual' })).status;
  assert.equal(await press({}), 401);
  assert.equal(await press({ authorization, origin: 'https://evil.example' }), 403);
  assert.equal(await press({ authorization, 'sec-fetch-site': 'cross-site' }), 403);
  assert.equal(receiver.pairing.closesInMs(), 0);
  assert.equal(await press({ authorization, origin: new URL(url).origin }), 303);
  assert.ok(receiver.pairing.closesInMs() > 0);
});

test('The script of the page makes no HTML of its own', async () => {
  const script = await readFile(fileOf('page.js'), 'utf8');
  assert.doesNotMatch(script, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|Function\(/);
});
