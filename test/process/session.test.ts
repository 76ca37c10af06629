/** Covers src/process/stop.ts and src/process/watchdog.ts. */
import assert from 'node:assert/strict';
import { execFile, fork, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { isReceiverError } from '../../src/errors.js';
import { silentLog, type Log } from '../../src/log.js';
import { identify, isAlive, type ProcessIdentity } from '../../src/process/identity.js';
import { spawnSession, type SessionOptions, type SessionProcess } from '../../src/process/session.js';
import {
  markerVariable,
  sessionMembers,
  signalProcess,
  type SessionIdentity,
  endSession,
} from '../../src/process/stop.js';

const env = { PATH: process.env['PATH'] ?? '/usr/bin:/bin' };
const child = (name: string): string =>
  fileURLToPath(new URL(`../fixtures/children/${name}`, import.meta.url));

interface Started extends SessionProcess {
  readonly output: () => string;
}

async function start(
  t: TestContext,
  command: readonly [string, ...string[]],
  options: Partial<SessionOptions> = {},
): Promise<Started> {
  let output = '';
  const session = await spawnSession(command, {
    cwd: '/',
    env,
    log: silentLog,
    onOutput: (chunk) => {
      output += chunk.toString();
    },
    ...options,
  });
  t.after(() => session.stop({ graceMs: 0 }));
  return { ...session, output: () => output };
}

async function until<T>(what: string, look: () => T | false | null | undefined): Promise<T> {
  const end = Date.now() + 10_000;
  for (;;) {
    const found = look();
    if (found) return found;
    assert.ok(Date.now() < end, `in 10 s never: ${what}`);
    await sleep(5);
  }
}

/** The process whose pid the child printed on its own line. */
async function printed(session: Started): Promise<ProcessIdentity> {
  return until('a pid', () => {
    const pid = /^(\d+)$/m.exec(session.output())?.[1];
    return pid ? identify(Number(pid)) : null;
  });
}

function hasArgument(pid: string, argument: string): boolean {
  return readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0').includes(argument);
}

describe('A session', { concurrency: 4 }, () => {
  test('A command gets its directory, its environment, an empty stdin and one stream for both outputs in order', async (t) => {
    const session = await start(t, [child('both-streams.sh')]);
    assert.deepEqual(await session.exited, { code: 0, signal: null });
    assert.equal(session.output(), [1, 2, 3, 4, 5].map((i) => `out ${i}\nerr ${i}\n`).join(''));

    const where = await start(t, ['sh', '-c', 'pwd; echo "$COLOUR"; env | wc -l'], {
      cwd: '/usr',
      env: { ...env, COLOUR: 'a b' },
    });
    await where.exited;
    const [cwd, colour, variables] = where.output().split('\n');
    assert.deepEqual([cwd, colour], ['/usr', 'a b']);
    assert.ok(Number(variables) <= 5, 'the environment of the receiver has leaked');
  });

  test('An exit code above 128 and a signal are distinguished', async (t) => {
    const code = await start(t, ['sh', '-c', 'exit 137']);
    const signal = await start(t, [child('dies-by-kill.sh')]);
    assert.deepEqual(await code.exited, { code: 137, signal: null });
    assert.deepEqual(await signal.exited, { code: null, signal: 'SIGKILL' });
    assert.equal(signal.output(), 'last words\n');
  });

  test('The identity is that of the command itself, which leads its group and its session', async (t) => {
    const session = await start(t, ['sh', '-c', 'echo up; exec sleep 300']);
    await until('output', () => session.output() === 'up\n');
    const { pid, startTime } = session.identity;
    await until('sleep', () => readFileSync(`/proc/${pid}/comm`, 'latin1') === 'sleep\n');
    const [leader, ...others] = sessionMembers(session.identity);
    assert.deepEqual(leader, { pid, group: pid, session: pid, startTime, alive: true });
    assert.deepEqual(others, [], 'the watchdog is no part of the session');
    assert.deepEqual(await session.stop({ graceMs: 5_000 }), { forced: false, survivors: 0 });
    assert.deepEqual(await session.exited, { code: null, signal: 'SIGTERM' });
  });

  test('Nothing runs before beforeStart has resolved, and nothing at all when it rejects', async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'koa-esphome-receiver-'));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    const file = join(directory, 'touched');
    let during: readonly unknown[] = [];
    const beforeStart = async (identity: SessionIdentity): Promise<void> => {
      await sleep(100);
      during = sessionMembers(identity);
      throw new Error('not now');
    };
    await assert.rejects(
      start(t, ['touch', file], { beforeStart }),
      (error: unknown) => error instanceof Error && error.message === 'not now',
    );
    assert.equal(during.length, 1, 'the session existed');
    assert.throws(() => readFileSync(file), { code: 'ENOENT' });
  });

  test('A program or a directory that is missing is refused with SPAWN before anything starts', async (t) => {
    const refused = (error: unknown): boolean =>
      isReceiverError(error, 'SPAWN') && !error.message.includes('/');
    await assert.rejects(start(t, ['/no/such/program']), refused);
    await assert.rejects(start(t, ['no-such-program']), refused);
    await assert.rejects(start(t, ['-c']), refused);
    await assert.rejects(start(t, ['/etc/passwd']), refused);
    await assert.rejects(start(t, ['true'], { cwd: '/no/such/directory' }), refused);
  });

  test('A command that ignores TERM is killed after the grace, and a second stop can shorten the grace', async (t) => {
    const session = await start(t, [child('ignores-term.sh')]);
    await until('output', () => session.output() === 'up\n');
    const long = session.stop({ graceMs: 60_000 });
    const early = await Promise.race([long, sleep(150, 'still there')]);
    assert.equal(early, 'still there');
    assert.deepEqual(await session.stop({ graceMs: 0 }), { forced: true, survivors: 0 });
    assert.deepEqual(await long, { forced: true, survivors: 0 });
    assert.deepEqual(await session.exited, { code: null, signal: 'SIGKILL' });
  });

  test('A compiler in its own process group is stopped with the session, even if TERM never reaches it', async (t) => {
    const session = await start(t, [child('own-group.sh')]);
    const compiler = await printed(session);
    assert.deepEqual(await session.stop({ graceMs: 100 }), { forced: true, survivors: 0 });
    assert.equal(isAlive(compiler), false);
  });

  test('Processes that a command leaves behind are stopped after its exit, whether they hold stdout or not', async (t) => {
    for (const [name, code] of [
      ['forks-and-exits.sh', 0],
      ['holds-stdout.sh', 3],
    ] as const) {
      const session = await start(t, [child(name)]);
      const straggler = await printed(session);
      assert.deepEqual(await session.exited, { code, signal: null });
      await session.settled();
      assert.equal(isAlive(straggler), false, name);
    }
  });

  test('The last output of a straggler still arrives', async (t) => {
    const session = await start(t, ['sh', '-c', '(sleep 0.1; echo late) & exit 0']);
    await session.exited;
    assert.equal(session.output(), 'late\n');
  });

  test('A process that left the session is found by its marker', async (t) => {
    const session = await start(t, [child('calls-setsid.sh')]);
    const escapee = await printed(session);
    await until('a session of its own', () =>
      sessionMembers(session.identity).some((member) => member.session === escapee.pid),
    );
    assert.equal((await session.stop({ graceMs: 50 })).survivors, 0);
    assert.equal(isAlive(escapee), false);
  });

  test('An unmarked process that holds stdout does not delay the end', async (t) => {
    const session = await start(t, [child('hides-and-holds-stdout.sh')]);
    const hidden = await printed(session);
    t.after(() => isAlive(hidden) && process.kill(hidden.pid, 'SIGKILL'));
    assert.deepEqual(await session.exited, { code: 0, signal: null });
    await session.settled();
  });

  test('A log of megabytes arrives complete, and an endless line does not prevent a stop', async (t) => {
    let bytes = 0;
    const onOutput = (chunk: Buffer): void => void (bytes += chunk.length);
    const much = await start(t, [child('prints-much.sh'), '20'], { onOutput });
    await much.exited;
    assert.equal(bytes, 20 << 20);

    bytes = 0;
    const endless = await start(t, [child('endless-line.sh')], { onOutput });
    await until('a megabyte', () => bytes > 1 << 20);
    assert.deepEqual(await endless.stop({ graceMs: 2_000 }), { forced: false, survivors: 0 });
  });

  test('When the receiver is killed its build is killed, including processes that left its group or session', async (t) => {
    const killed = async (name: string): Promise<void> => {
      const receiver = fork(fileURLToPath(new URL('receiver.ts', import.meta.url)), [child(name)], {
        execArgv: ['--import', 'tsx'],
        stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
      });
      t.after(() => receiver.kill('SIGKILL'));
      let output = '';
      receiver.stdout!.on('data', (chunk: Buffer) => (output += chunk.toString()));
      await until('the identity and the pid', () => output.split('\n').length === 3);
      const session = JSON.parse(output.split('\n')[0]!) as SessionIdentity;
      await until('all members', () => sessionMembers(session).length >= 2);
      receiver.kill('SIGKILL');
      await once(receiver, 'exit');
      await until('an empty session', () => sessionMembers(session).length === 0);
    };
    await Promise.all(['own-group.sh', 'calls-setsid.sh', 'ignores-term.sh'].map(killed));
  });

  test('The death of the watchdog is logged and does not affect the build', async (t) => {
    const warnings: string[] = [];
    const log: Log = { ...silentLog, warn: (_facts, text) => void warnings.push(text) };
    const session = await start(t, ['sleep', '300'], { log });
    const watchdogs = readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, 'latin1')
      .split(' ')
      .filter((pid) => pid !== '' && hasArgument(pid, String(session.identity.pid)));
    assert.equal(watchdogs.length, 1);
    process.kill(Number(watchdogs[0]), 'SIGKILL');
    await until('a warning', () => warnings.length === 1);
    assert.equal(isAlive(session.identity), true);
    await session.stop({ graceMs: 1_000 });
  });

  test("A dead receiver's session is ended only where its identity matches", async (t) => {
    const session = await start(t, [child('own-group.sh')]);
    const compiler = await printed(session);
    const { identity } = session;

    const reused = { ...identity, startTime: identity.startTime + 1, marker: 'another' };
    assert.deepEqual(await endSession(reused), { forced: false, survivors: 0 });
    const rebooted = { ...identity, bootId: 'another' };
    assert.deepEqual(await endSession(rebooted), { forced: false, survivors: 0 });
    assert.deepEqual(await endSession({ ...identity, bootId: '', startTime: 0 }), {
      forced: false,
      survivors: 0,
    });
    assert.equal(isAlive(compiler) && isAlive(identity), true);

    assert.deepEqual(await endSession(identity), { forced: true, survivors: 0 });
    assert.equal(isAlive(compiler) || isAlive(identity), false);
  });

  test('Without its leader a session is identified by the marker, and by its number only if it was watched without a gap', async (t) => {
    const marker = `test-${process.pid}`;
    const leader = spawn('sh', ['-c', 'read -r go; env -i /bin/sleep 300 & sleep 300 &'], {
      detached: true,
      env: { ...env, [markerVariable]: marker },
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    const identity = { ...identify(leader.pid!)!, marker };
    t.after(() => {
      for (const member of sessionMembers(identity, { watched: true })) signalProcess(member, 'SIGKILL');
    });
    leader.stdin.end('go\n');
    await once(leader, 'exit');
    await until('one without environment', () => sessionMembers(identity).length === 1);
    assert.equal(sessionMembers(identity, { watched: true }).length, 2);
    assert.equal(sessionMembers({ ...identity, marker: 'another' }).length, 0);
    assert.equal(sessionMembers({ ...identity, marker: '' }).length, 0);
  });
});

test('Without a free descriptor a start fails with SPAWN, and this process goes on', async (t) => {
  if (spawnSync('prlimit', ['--version']).error) return t.skip('there is no prlimit');
  const program = fileURLToPath(new URL('./descriptors-worker.ts', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', program]);
  const ends = JSON.parse(stdout) as string[];
  assert.equal(ends[0], 'SPAWN');
  assert.equal(ends.at(-1), '0');
  assert.deepEqual(
    ends.filter((end) => end !== 'SPAWN' && end !== '0'),
    [],
  );
});
