import assert from 'node:assert/strict';
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { hashName } from '../../src/paths/segments.js';
import { isReceiverError, type ErrorCode } from '../../src/errors.js';
import { enterToolchain, nameOf, type ToolchainGate, type GateOptions } from '../../src/toolchains/gate.js';
import { silentLog } from '../../src/log.js';
import { sessionMembers } from '../../src/process/stop.js';
import type { GateAnswer, GateQuestion } from './gate-worker.js';
import { fast, freshDir, startWorkers, until, type Worker } from '../locks/helpers.js';

type Place = Omit<GateOptions, 'log'>;

async function freshPlace(t: TestContext): Promise<Place> {
  const root = await freshDir(t);
  return {
    ...{ locksDir: join(root, 'locks'), toolsDir: join(root, 'tools') },
    key: { platform: 'esp32', framework: 'esp-idf', toolchain: 'default', selection: '', version: '5.5' },
    ...{ reason: 'a test', timing: fast },
  };
}

const directoryOf = ({ locksDir, key }: Place): string => join(locksDir, hashName('toolchain', nameOf(key)));

function enter(t: TestContext, place: Place, options: Partial<GateOptions> = {}): Promise<ToolchainGate> {
  const gate = enterToolchain({ ...place, log: silentLog, ...options });
  gate.then(
    (entered) => t.after(() => entered.leave()),
    () => {},
  );
  return gate;
}

async function isWaiting(gate: Promise<ToolchainGate>): Promise<boolean> {
  return (await Promise.race([gate, sleep(150, 'waiting')])) === 'waiting';
}

const rejectsWith = (promise: Promise<unknown>, code: ErrorCode): Promise<void> =>
  assert.rejects(promise, (error) => isReceiverError(error, code));

const ask = (worker: Worker | undefined, question: GateQuestion): Promise<GateAnswer> =>
  worker!.ask<GateAnswer>(question);

describe('The toolchain gate', { concurrency: 6 }, () => {
  test('Cold tools are entered alone, one after the other, until they are ready; then together', async (t) => {
    const place = await freshPlace(t);
    const first = await enter(t, place);
    assert.equal(first.stamp, null);
    const waits = [1, 2, 3].map(() => enter(t, place));
    const other = await enter(t, { ...place, key: { ...place.key, platform: 'esp8266' } });
    assert.equal(other.stamp, null, 'other tools are a matter of their own');
    assert.ok(await isWaiting(waits[0]!));

    await first.leave();
    const second = await waits[0]!;
    assert.equal(second.stamp, null, 'the first build has failed, so the tools are still cold');
    assert.ok(await isWaiting(waits[1]!));
    await second.markReady();
    await second.leave();
    const together = await Promise.all([waits[1]!, waits[2]!, enter(t, place)]);
    const [stamp] = together.map((gate) => gate.stamp);
    assert.ok(stamp);
    assert.ok(together.every((gate) => gate.stamp === stamp));
    await rejectsWith(together[0].markReady(), 'STATE');
    await Promise.all(together.map((gate) => gate.leave()));
    assert.deepEqual(
      (await readdir(directoryOf(place))).filter((name) => !name.startsWith('fence')),
      [],
    );
  });

  test('Broken tools are renewed alone, after all their users have left, and only once', async (t) => {
    const place = await freshPlace(t);
    const cold = await enter(t, place);
    await cold.markReady();
    await cold.leave();
    const [one, two] = await Promise.all([enter(t, place), enter(t, place)]);
    const broken = one.stamp!;
    await one.leave();

    const renewal = enter(t, place, { broken });
    await until('the mark to go', async () => (await readdir(place.toolsDir)).length === 0);
    assert.ok(await isWaiting(renewal));
    const newcomer = enter(t, place);
    await rejectsWith(two.recordBuild(null), 'FENCED');
    await two.leave();
    const renewer = await renewal;
    assert.equal(renewer.stamp, null);
    assert.ok(await isWaiting(newcomer));
    await renewer.markReady();
    await renewer.leave();
    const { stamp } = await newcomer;
    assert.notEqual(stamp, broken);
    const late = await enter(t, place, { broken });
    assert.equal(late.stamp, stamp, 'who complains about the old ones gets the new ones');
  });

  test('Tools that somebody has deleted, or whose mark is damaged, are cold', async (t) => {
    const place = await freshPlace(t);
    const cold = await enter(t, place);
    await cold.markReady();
    await cold.leave();
    const [mark] = await readdir(place.toolsDir);
    await writeFile(join(place.toolsDir, mark!), '{"sta');
    const damaged = await enter(t, place);
    assert.equal(damaged.stamp, null);
    await damaged.markReady();
    await damaged.leave();
    await rm(place.toolsDir, { recursive: true });
    assert.equal((await enter(t, place)).stamp, null);
  });

  test('A wait at the gate ends by its signal or its deadline, also the wait for the users', async (t) => {
    const place = await freshPlace(t);
    const cold = await enter(t, place);
    await rejectsWith(enter(t, place, { deadlineMs: 50 }), 'LOCK_TIMEOUT');
    await cold.markReady();
    await cold.leave();
    const user = await enter(t, place);
    await rejectsWith(enter(t, place, { broken: user.stamp!, deadlineMs: 50 }), 'LOCK_TIMEOUT');
    const cancel = new AbortController();
    const cancelled = enter(t, place, { broken: user.stamp!, signal: cancel.signal });
    assert.ok(await isWaiting(cancelled));
    cancel.abort();
    await rejectsWith(cancelled, 'CANCELLED');
    await user.leave();
    assert.equal((await enter(t, place)).stamp, null);
  });

  test('A file in place of the locks directory throws STORAGE', async (t) => {
    const place = await freshPlace(t);
    await writeFile(place.locksDir, '');
    await rejectsWith(enter(t, place), 'STORAGE');
  });

  test('A holder that dies leaves cold tools and no build; a user that dies leaves no build and is not waited for', async (t) => {
    const place = await freshPlace(t);
    const [installer, user] = await startWorkers(t, new URL('./gate-worker.ts', import.meta.url), 2);
    const command = [
      fileURLToPath(new URL('../fixtures/children/ignores-term.sh', import.meta.url)),
    ] as const;
    assert.equal((await ask(installer, { do: 'enter', options: place })).stamp, null);
    const { build } = await ask(installer, { do: 'build', command });
    installer!.process.kill('SIGKILL');
    const next = await enter(t, place, { deadlineMs: 10_000 });
    assert.equal(next.stamp, null);
    assert.equal(sessionMembers(build!).length, 0);
    await next.markReady();
    await next.leave();

    const { stamp } = await ask(user, { do: 'enter', options: place });
    assert.ok(stamp);
    const used = await ask(user, { do: 'build', command });
    user!.process.kill('SIGKILL');
    assert.equal((await enter(t, place, { broken: stamp, deadlineMs: 10_000 })).stamp, null);
    assert.equal(sessionMembers(used.build!).length, 0);
  });
});
