/**
 * The key, the pin as people see it, the dashboard id, and labels from strangers. Covers src/peers/kept-file.ts and
 * src/protocol/fingerprint.ts.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { silentLog } from '../../src/log.js';
import {
  keepIdentity,
  keepTrust,
  loadDashboardId,
  newDashboardId,
  identityOf,
  loadIdentity,
} from '../../src/peers/identity.js';
import { cleanLabel } from '../../src/peers/peer-row.js';
import { pictures, pinOf, pinPictures, pinText } from '../../src/protocol/fingerprint.js';
import { everyFailure } from '../support/failing-disk.js';
import { recordingLog } from '../support/recording-log.js';
import { manualClock } from '../async/manual-clock.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';

const ramp = (first: number): Buffer => Buffer.from(Array.from({ length: 32 }, (_, n) => first + n));

const vectors = [
  {
    who: 'initiator',
    identity: identityOf(ramp(0x00)),
    publicKey: '8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f',
    pin: 'eedd883da0a9451593dc0a38e583fb770fa27dbbed209c20404e075e68c4f0c9',
    names: 'Bell, Scissors, Rocket, Panda, Flower, Corn, Lion',
  },
  {
    who: 'responder',
    identity: identityOf(ramp(0x20)),
    publicKey: '358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd166254',
    pin: 'a0289810032eb417274eebc4a38e6899b935321d53554e32ec6322f0fa1e724e',
    names: 'Gift, Lion, Wrench, Apple, Unicorn, Dog, Fish',
  },
];

for (const { who, identity, publicKey, pin, names } of vectors) {
  test(`The ${who}'s public key, pin and pictures match the published vector`, () => {
    assert.equal(identity.publicKey.toString('hex'), publicKey);
    assert.equal(identity.pin, pin);
    assert.equal(pinOf(Buffer.from(publicKey, 'hex')), pin);
    const shown = pinPictures(pin).map(({ name }) => name);
    assert.equal(shown.join(', '), names);
  });
}

test('There are 64 pictures, each with a unique emoji and name', () => {
  assert.equal(new Set(pictures.map(({ emoji }) => emoji)).size, 64);
  assert.equal(new Set(pictures.map(({ name }) => name)).size, 64);
  const byIndex = [0, 21, 36, 49, 60, 63].map((index) => pictures[index]);
  assert.deepEqual(byIndex, [
    { emoji: '\u{1f436}', name: 'Dog' },
    { emoji: '\u2601\ufe0f', name: 'Cloud' },
    { emoji: '\u{1f44d}', name: 'Thumbs up' },
    { emoji: '\u260e\ufe0f', name: 'Telephone' },
    { emoji: '\u2693\ufe0f', name: 'Anchor' },
    { emoji: '\u{1f4cc}', name: 'Pin' },
  ]);
  // The order is fixed: another one would show two people different pictures of the same pin.
  const all = pictures.map(({ emoji, name }) => `${emoji} ${name}`).join();
  assert.equal(
    createHash('sha256').update(all).digest('hex'),
    'b5e56361324725d69d9c54130e23592928b1de8ef00adceca014571e346b3cd2',
  );
});

test('Anything but a complete pin has no pictures', () => {
  const pin = pinOf(ramp(1));
  for (const half of ['', 'ab', pin.slice(1), `${pin}0`, pin.toUpperCase(), pinText(pin)])
    assert.throws(() => pinPictures(half), { code: 'OPTIONS' }, half);
});

test('A pin is shown as 32 pairs separated by single spaces', () => {
  assert.match(pinText(pinOf(ramp(1))), /^([0-9a-f]{2} ){31}[0-9a-f]{2}$/);
});

test('The key is created once, is readable by its owner only, and stays the same', async (t) => {
  const directory = join(await tempDir(t), 'receiver');
  const first = await loadIdentity(directory, silentLog);
  const file = join(directory, 'identity.key');
  assert.deepEqual(await readFile(file), first.privateKey);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  const second = await loadIdentity(directory, silentLog);
  assert.equal(second.pin, first.pin);
  assert.deepEqual(await readdir(directory), ['identity.key']);
});

test('Receivers that start at the same time in a new directory all use the same stored key', async (t) => {
  const directory = join(await tempDir(t), 'receiver');
  const loads = Array.from({ length: 16 }, () => loadIdentity(directory, silentLog));
  const pins = new Set((await Promise.all(loads)).map(({ pin }) => pin));
  assert.deepEqual([...pins], [(await loadIdentity(directory, silentLog)).pin]);
  assert.deepEqual(await readdir(directory), ['identity.key']);
});

const unusableKeys: readonly [what: string, fault: RegExp, plant: (file: string) => Promise<void>][] = [
  ['truncated', /has 5 bytes: expected 32/, (file) => writeFile(file, 'short')],
  ['empty', /is empty/, (file) => writeFile(file, '')],
  ['one byte too long', /has 33 bytes: expected 32/, (file) => writeFile(file, Buffer.alloc(33, 1))],
  ['all zeros', /contains only zeros/, (file) => writeFile(file, Buffer.alloc(32))],
  ['a link to a missing file', /link to a missing file/, (file) => symlink('/nonexistent/key', file)],
];

for (const [what, message, plant] of unusableKeys) {
  test(`A key that is ${what} is refused by all receivers that start at once, and left as it is`, async (t) => {
    const directory = await tempDir(t);
    const file = join(directory, 'identity.key');
    await plant(file);
    const starts = Array.from({ length: 8 }, () =>
      loadIdentity(directory, silentLog, { newIdentity: false }),
    );
    for (const { reason } of (await Promise.allSettled(starts)) as PromiseRejectedResult[]) {
      assert.equal(reason.code, 'STATE');
      assert.match(reason.message, message);
      assert.match(reason.message, /identity\.key.*restore identity\.key.*--new-identity/);
      assert.equal(reason.facts.file, file);
    }
    assert.deepEqual(await readdir(directory), ['identity.key']);
  });

  test(`With newIdentity, a key that is ${what} is renamed, and all receivers use one new key`, async (t) => {
    const directory = await tempDir(t);
    await plant(join(directory, 'identity.key'));
    const log = recordingLog();
    const starts = Array.from({ length: 8 }, () => loadIdentity(directory, log, { newIdentity: true }));
    const pins = new Set((await Promise.all(starts)).map(({ pin }) => pin));
    assert.deepEqual([...pins], [(await loadIdentity(directory, log)).pin]);
    const aside = (await readdir(directory)).filter((name) => name.startsWith('identity.key.unusable-'));
    assert.equal(aside.length, 1);
    assert.deepEqual(log.entries, ['warn: unusable state file set aside']);
    assert.equal((await loadIdentity(directory, log, { newIdentity: true })).pin, [...pins][0]);
  });
}

test('A missing key on which dashboards rely is refused, unless newIdentity is set', async (t) => {
  const directory = await tempDir(t);
  const isReliedOn = async (): Promise<boolean> => true;
  const message = /is missing, although dashboards are paired or builds exist.*--new-identity/;
  const asked = { isReliedOn, newIdentity: false };
  await assert.rejects(loadIdentity(directory, silentLog, asked), { code: 'STATE', message });
  assert.deepEqual(await readdir(directory), []);
  await loadIdentity(directory, silentLog, { isReliedOn, newIdentity: true });
  await loadIdentity(directory, silentLog, { isReliedOn });
});

test('While a receiver runs, it looks every minute whether its key is still there', async (t) => {
  const directory = join(await tempDir(t), 'receiver');
  const identity = await loadIdentity(directory, silentLog);
  const time = manualClock();
  let rereads = 0;
  const end = keepTrust(directory, [{ number: 1, identity, friendlyName: '' }], {
    ...{ clock: time, log: silentLog },
    async reread() {
      rereads += 1;
    },
  });
  for (let minute = 1; minute <= 2; minute += 1) {
    await rm(directory, { recursive: true });
    time.advance(60_000);
    await waitFor(() => rereads === minute);
    assert.deepEqual(await readdir(directory), ['identity.key']);
  }
  await end();
  assert.equal(time.waiting, 0);
});

test('A key that is removed while it is in use is written again, and a changed one is left alone', async (t) => {
  const directory = join(await tempDir(t), 'receiver');
  const identity = await loadIdentity(directory, silentLog);
  await rm(directory, { recursive: true });
  const log = recordingLog();
  await keepIdentity(directory, identity, log);
  assert.equal((await loadIdentity(directory, silentLog)).pin, identity.pin);
  assert.equal((await stat(join(directory, 'identity.key'))).mode & 0o777, 0o600);
  await writeFile(join(directory, 'identity.key'), Buffer.alloc(32, 9));
  await keepIdentity(directory, identity, log);
  assert.deepEqual(await readFile(join(directory, 'identity.key')), Buffer.alloc(32, 9));
  assert.deepEqual(log.entries, ['warn: missing state file written again']);
});

test('An unreadable key file is an error, and no new key is created', async (t) => {
  const directory = await tempDir(t);
  await mkdir(join(directory, 'identity.key'));
  await assert.rejects(loadIdentity(directory, silentLog), { code: 'EISDIR' });
  assert.deepEqual(await readdir(directory), ['identity.key']);
});

test('The dashboard id is 32 characters of base64url, created once, and replaced if damaged', async (t) => {
  const directory = await tempDir(t);
  const id = await loadDashboardId(directory, silentLog);
  assert.match(id, /^[A-Za-z0-9_-]{32}$/);
  assert.equal(await loadDashboardId(directory, silentLog), id);
  assert.notEqual(newDashboardId(), newDashboardId());
  await writeFile(join(directory, 'dashboard-id'), '../../etc');
  assert.notEqual(await loadDashboardId(directory, silentLog), id);
  assert.equal((await readdir(directory)).length, 2);
  await rm(join(directory, 'dashboard-id'));
  await symlink('/nonexistent/id', join(directory, 'dashboard-id'));
  const made = await Promise.all(Array.from({ length: 8 }, () => loadDashboardId(directory, silentLog)));
  assert.equal(new Set(made).size, 1, 'a dangling link is replaced once');
});

const labels: readonly [title: string, text: unknown, shown: string][] = [
  ['a value that is not a string becomes empty', 42, ''],
  ['white space around a label is removed', '  Home \n', 'Home'],
  ['line breaks and tabs become single spaces', 'Home\r\n\tserver', 'Home server'],
  ['control characters are removed', 'Ho\u0007me\u001b[31m', 'Home[31m'],
  ['direction marks are removed', 'Home\u202etxe.\u2066x\u200f', 'Hometxe.x'],
  ['invisible letters are removed', 'H\u200bo\u3164m\u034fe\u2800\ufe0f', 'Home'],
  ['an unpaired surrogate is removed', 'Home\ud83d', 'Home'],
  ['letters of other scripts and emoji are kept', 'Küche 厨房 🔥', 'Küche 厨房 🔥'],
  ['128 characters are kept, not code units', '🔥'.repeat(200), '🔥'.repeat(128)],
];

for (const [title, text, shown] of labels) {
  test(`In labels, ${title}`, () => assert.equal(cleanLabel(text), shown));
}

test('Whichever file system call fails, a key is made once and never changes', async (t) => {
  const tried = await everyFailure(async () => {
    const directory = await tempDir(t);
    return {
      directory,
      act: () => loadIdentity(directory, silentLog),
      async check(outcome, at) {
        const { pin } = await loadIdentity(directory, silentLog);
        if ('result' in outcome) assert.equal(outcome.result.pin, pin, at);
        const left = (await readdir(directory)).filter((name) => !name.endsWith('.tmp'));
        assert.deepEqual(left, ['identity.key'], at);
      },
    };
  });
  assert.ok(tried > 20, `${tried} failures`);
});

test('Whichever file system call fails, a stored key is read or the start fails, and it stays as it is', async (t) => {
  const tried = await everyFailure(async () => {
    const directory = await tempDir(t);
    const { pin } = await loadIdentity(directory, silentLog);
    return {
      directory,
      act: () => loadIdentity(directory, silentLog, { newIdentity: true }),
      async check(outcome, at) {
        if ('result' in outcome) assert.equal(outcome.result.pin, pin, at);
        assert.equal((await loadIdentity(directory, silentLog)).pin, pin, at);
        assert.deepEqual(await readdir(directory), ['identity.key'], at);
      },
    };
  });
  assert.ok(tried >= 4, `${tried} failures`);
});

test('A client with a damaged key is told to restore or remove it, and reads of no option of the receiver', async (t) => {
  const directory = await tempDir(t);
  await writeFile(join(directory, 'identity.key'), 'short');
  await assert.rejects(loadIdentity(directory, silentLog), (error: Error) => {
    assert.match(error.message, /restore it from a backup, or remove it/);
    assert.doesNotMatch(error.message, /newIdentity/);
    return true;
  });
});
