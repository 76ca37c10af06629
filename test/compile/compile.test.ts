/**
 * One compile from its start to the end of its last process, with every way of ending and its classification. Covers
 * src/compile/output.ts and src/compile/verdict.ts.
 */
import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { runCompile, type CompileRequest, type CompileResult } from '../../src/compile/compile.js';
import { noMarks, readMarks } from '../../src/compile/output.js';
import { judge, leavesDamage } from '../../src/compile/verdict.js';
import { diskFullMessage, isReceiverError } from '../../src/errors.js';
import { silentLog } from '../../src/log.js';
import { spawnSession } from '../../src/process/session.js';
import { standInEsphome } from '../../src/testing/index.js';
import { isAlive } from '../support/is-alive.js';
import { assertLinear } from '../support/linear.js';
import { tempDir } from '../support/temp-dir.js';

const timeoutMs = 30_000;
const limits = { timeoutMs };
const clean = {
  exitCode: 0,
  signal: null,
  cancelled: false,
  timedOut: false,
  silent: false,
  leaseLost: false,
  forced: false,
};

interface Build {
  readonly base: string;
  readonly lines: string[];
  readonly cancel: AbortController;
  readonly lease: AbortController;
  /** Resolves when a line matches. */
  printed(pattern: RegExp): Promise<string>;
  run(more?: Partial<CompileRequest>): Promise<CompileResult>;
}

async function build(t: TestContext, knobs: string): Promise<Build> {
  const base = await tempDir(t);
  const yaml = join(base, 'kitchen.yaml');
  await writeFile(yaml, `# stand-in: ${knobs}\nesphome:\n  name: kitchen\nhost:\n`);
  const lines: string[] = [];
  const waiting = new Map<RegExp, (line: string) => void>();
  const [cancel, lease] = [new AbortController(), new AbortController()];
  return {
    ...{ base, lines, cancel, lease },
    printed: (pattern) => new Promise((resolve) => waiting.set(pattern, resolve)),
    run: (more) =>
      runCompile({
        command: [...standInEsphome, '--dashboard', 'compile', yaml],
        cwd: base,
        env: { PATH: '/usr/bin:/bin', ESPHOME_DATA_DIR: join(base, 'data'), ESPHOME_NOGITIGNORE: '1' },
        signal: cancel.signal,
        leaseSignal: lease.signal,
        timeoutMs,
        onLine(line) {
          lines.push(line);
          for (const [pattern, resolve] of waiting) if (pattern.test(line)) resolve(line);
        },
        log: silentLog,
        ...more,
      }),
  };
}

test('A successful compile passes on every line with its terminator', async (t) => {
  const { run, lines } = await build(t, 'lines=10000');
  const result = await run();
  assert.deepEqual(result, { ...clean, marks: noMarks });
  assert.equal(judge(result, limits), null);
  assert.equal(leavesDamage(result), false);
  assert.equal(lines.filter((line) => line.startsWith('stand-in: line ')).length, 10_000);
  assert.match(lines.at(-1) ?? '', /INFO Successfully compiled program/);
  assert.ok(lines.every((line) => line.endsWith('\n')));
});

test('A cancelled compile is stopped politely, and its result says so', async (t) => {
  const { run, cancel, printed } = await build(t, 'sleep=60000');
  const running = run();
  await printed(/stand-in: sleeping/);
  cancel.abort();
  const result = await running;
  assert.deepEqual(result, { ...clean, exitCode: null, signal: 'SIGTERM', cancelled: true, marks: noMarks });
  assert.equal(leavesDamage(result), false);
});

test('A child that ignores the polite signal is killed, with the processes that it started in another group', async (t) => {
  const { run, lease, printed } = await build(t, 'ignore-term fork sleep=60000');
  const running = run({ graceMs: 100 });
  const [forked] = await Promise.all([printed(/stand-in: forked \d+/), printed(/stand-in: sleeping/)]);
  lease.abort();
  const result = await running;
  const { exitCode, signal, leaseLost, cancelled, forced } = result;
  assert.deepEqual(
    { exitCode, signal, leaseLost, cancelled, forced },
    {
      ...{ exitCode: null, signal: 'SIGKILL', leaseLost: true, cancelled: false, forced: true },
    },
  );
  assert.equal(leavesDamage(result), true);
  assert.equal(isAlive(Number(/\d+/.exec(forked)?.[0])), false);
});

test('Processes that a successful compile leaves running are stopped, and it stays a success', async (t) => {
  const { run, lines } = await build(t, 'fork');
  const result = await run();
  assert.equal(judge(result, limits), null);
  const forked = lines.find((line) => line.startsWith('stand-in: forked'));
  assert.equal(isAlive(Number(/\d+/.exec(forked ?? '')?.[0])), false);
});

test('It returns when the last process is gone, and keeps output without a final line end', async (t) => {
  const { run, lines } = await build(t, '');
  const left = { isGone: false };
  const result = await run({
    command: ['/bin/sh', '-c', 'printf "no end"'],
    async spawn(command, options) {
      const session = await spawnSession(command, options);
      return {
        ...session,
        async settled() {
          await session.settled();
          left.isGone = true;
        },
      };
    },
  });
  assert.equal(result.exitCode, 0);
  assert.equal(left.isGone, true);
  assert.deepEqual(lines, ['no end']);
});

test('A compile that takes too long is stopped and reported as timed out', async (t) => {
  const { run } = await build(t, 'sleep=60000');
  const result = await run({ timeoutMs: 400 });
  assert.deepEqual([result.timedOut, result.cancelled, result.signal], [true, false, 'SIGTERM']);
  assert.deepEqual(judge(result, { timeoutMs: 3_600_000 }), {
    reason: 'resource',
    message: "stopped: it took longer than 60 minutes; build again, or have the build server's limit raised",
  });
});

test('A compile that prints nothing for too long is stopped and reported as silent; one that prints now and then is not', async (t) => {
  const hung = await build(t, 'sleep=60000');
  const result = await hung.run({ silenceTimeoutMs: 600 });
  assert.deepEqual([result.silent, result.timedOut, result.signal], [true, false, 'SIGTERM']);
  assert.equal(leavesDamage(result), false);
  assert.deepEqual(judge(result, { timeoutMs, silenceTimeoutMs: 1_200_000 }), {
    reason: 'resource',
    message:
      "stopped: it printed nothing for 20 minutes; build again, or have the build server's limit raised",
  });
  const { run } = await build(t, '');
  const command = ['/bin/sh', '-c', 'for n in 1 2 3 4 5 6; do echo $n; sleep 0.2; done'] as const;
  const begin = performance.now();
  assert.deepEqual(await run({ command, silenceTimeoutMs: 800 }), { ...clean, marks: noMarks });
  assert.ok(performance.now() - begin > 800, 'it took longer than the silence that is allowed');
});

test('Nothing is started for a job that is already cancelled or has lost its lease', async (t) => {
  const { run, base } = await build(t, '');
  const spawn = (): never => assert.fail('it was started');
  const aborted = AbortSignal.abort();
  assert.deepEqual((await run({ signal: aborted, spawn })).cancelled, true);
  assert.deepEqual((await run({ leaseSignal: aborted, spawn })).leaseLost, true);
  await assert.rejects(readFile(join(base, 'data')), { code: 'ENOENT' });
});

test('A cancel while the command is being started stops it', async (t) => {
  const { run, cancel, lines } = await build(t, 'sleep=60000');
  const result = await run({
    beforeStart() {
      cancel.abort();
      return Promise.resolve();
    },
  });
  assert.equal(result.cancelled, true);
  assert.equal(result.exitCode, null);
  assert.deepEqual(lines, []);
});

test('When the identity cannot be recorded the command never runs', async (t) => {
  const { run, lines } = await build(t, '');
  const error = new Error('the disk is full');
  await assert.rejects(run({ beforeStart: () => Promise.reject(error) }), error);
  assert.deepEqual(lines, []);
});

test('A command that does not exist fails with SPAWN', async (t) => {
  const { run, base } = await build(t, '');
  await assert.rejects(run({ command: [join(base, 'gone')] }), (error) => isReceiverError(error, 'SPAWN'));
});

test('Failures are classified by what the user can do about them', async (t) => {
  const killed = 'print=g++:_fatal_error:_Killed_signal_terminated_program_cc1plus exit=1';
  const outOfMemory =
    'resource: killed, probably out of memory; build again when the build server has less to do, or give it more memory';
  const cases: readonly (readonly [string, string, boolean])[] = [
    ['exit=2', 'config: the configuration is invalid; the log says where', false],
    ['exit=1', 'compile: the compile failed (exit code 1); the log says why', false],
    ['exit=77', 'compile: the compile failed (exit code 77); the log says why', false],
    [killed, outOfMemory, true],
    ['signal=SIGKILL', outOfMemory, true],
    ['exit=137', outOfMemory, true],
    [
      'print=cc1plus:_out_of_memory_allocating_65536_bytes exit=1',
      'resource: the build server ran out of memory; give it more, or less to do',
      false,
    ],
    ['signal=SIGSEGV', 'compile: ESPHome was ended by SIGSEGV; build again, and look at the log', true],
    ['print=cannot_write_PCH_file:_No_space_left_on_device exit=1', `resource: ${diskFullMessage}`, true],
    [
      'print=ERROR_Failed_to_download_x exit=1',
      'provision: the build server could not download what the build needs; check its connection and build again',
      false,
    ],
    [
      'print=ModuleNotFoundError:_No_module_named_x',
      'toolchain: ESPHome on the build server is incomplete and must be installed again: it reported success after "ModuleNotFoundError"',
      false,
    ],
    ['print=WARNING_ImportError:_not_important', 'success', false],
  ];
  await Promise.all(
    cases.map(async ([knobs, expected, damage]) => {
      const result = await (await build(t, knobs)).run();
      const failure = judge(result, limits);
      assert.equal(failure ? `${failure.reason}: ${failure.message}` : 'success', expected, knobs);
      assert.equal(leavesDamage(result), damage, knobs);
    }),
  );
});

test('An unreachable host is not the fault of the configuration, even where ESPHome says that it is invalid', () => {
  const result = { ...clean, exitCode: 2, marks: { ...noMarks, downloadFailed: true } };
  assert.equal(judge(result, limits)?.reason, 'provision');
  assert.equal(judge({ ...result, marks: noMarks }, limits)?.reason, 'config');
});

test('Marks are recognized despite colours, and unrelated lines set none', () => {
  const colours = readMarks(noMarks, '\\033[33mWARNING command not found\\033[0m\n');
  assert.equal(colours, noMarks);
  assert.equal(
    readMarks(noMarks, '\x1b[31msh: g++: command not found\x1b[0m\n').contradiction,
    'command not found',
  );
  for (const line of ['  - name: "Killed Lights"\n', '[3/9] CXX obj/src/ImportErrors.o\n', 'space left\n']) {
    assert.equal(readMarks(noMarks, line).killed, false, line);
  }
});

test('A killed compiler, a lack of memory and a full disk are recognized in every tool’s messages', () => {
  const words = {
    killed: [
      'FAILED: [code=137] obj/a.o',
      '/bin/sh: line 1: 4711 Killed   g++ -c a.cpp',
      'g++: fatal error: Killed signal terminated program cc1plus',
      'xtensa-esp32-elf-g++: internal compiler error: Killed (program cc1plus)',
      'collect2: fatal error: ld terminated with signal 9 [Killed]',
      '*** [.pioenvs/k/src/main.cpp.o] Error 137',
      '*** [.pioenvs/k/firmware.elf] Error -9',
    ],
    outOfMemory: [
      'cc1plus: out of memory allocating 65536 bytes after a total of 1 bytes',
      'virtual memory exhausted: Cannot allocate memory',
      'ninja: fatal: posix_spawn: Cannot allocate memory',
      'MemoryError',
      "terminate called after throwing an instance of 'std::bad_alloc'",
    ],
    diskFull: [
      'main.cpp:1: fatal error: cannot write PCH file: No space left on device',
      'ERROR Error copying file /a to /b: [Errno 28] No space left on device',
      'OSError: [Errno 122] Disk quota exceeded',
      'npm ERR! code ENOSPC',
    ],
  };
  for (const [mark, lines] of Object.entries(words)) {
    for (const line of lines)
      assert.deepEqual(readMarks(noMarks, `${line}\n`), { ...noMarks, [mark]: true }, line);
  }
});

test('Broken tools are distinguished from a wrong configuration', () => {
  const broken = [
    'sh: 1: /b/toolchains/platformio/packages/toolchain-xtensa/bin/xtensa-lx106-elf-g++: not found',
    '/bin/sh: xtensa-esp32-elf-g++: command not found',
    'sh: line 1: /b/platformio/penv/bin/esptool: No such file or directory',
    '/b/platformio/penv/.espidf-5.1.2/bin/python: No module named pip',
    "FileNotFoundError: [Errno 2] No such file or directory: '/b/idf/frameworks/5.5.6/tools/tools.json'",
    "ModuleNotFoundError: No module named 'platformio'",
    "ModuleNotFoundError: No module named 'esp_idf_monitor'",
    "Error: Could not find one of 'package.json' manifest files in the package",
    'ERROR cmake executable not found in ESP-IDF environment. ',
    'ccache: error: execute_noreturn of /b/arduino8266/toolchains/3/bin/xtensa-lx106-elf-g++ failed: No such file or directory',
    "xtensa-lx106-elf-g++: fatal error: cannot execute 'cc1plus': execvp: No such file or directory",
    "/b/x/bin/xtensa-lx106-elf-g++: fatal error: cannot execute 'as': execvp: Exec format error",
    "collect2: fatal error: cannot find 'ld'",
    '/b/lib/gcc/xtensa-lx106-elf/10.3.0/../../../../xtensa-lx106-elf/bin/ld: cannot find -lc: No such file or directory',
    'ld: cannot find -lstdc++',
    '/b/arduino8266/toolchains/3/xtensa-lx106-elf/include/c++/10.3.0/cstdlib:75:15: fatal error: stdlib.h: No such file or directory',
    '/b/platformio/packages/toolchain-xtensa/include/a.h:5:10: fatal error: sys/b.h: No such file or directory',
    'src/esphome/core/helpers.h:3:10: fatal error: cstdint: No such file or directory',
    '/bin/sh: 1: /b/arduino8266/toolchains/3/bin/xtensa-lx106-elf-g++: Exec format error',
    'sh: /b/platformio/packages/x/bin/ar: cannot execute binary file: Exec format error',
    'g++: internal compiler error: Segmentation fault signal terminated program cc1plus',
    'FAILED: [code=139] obj/src/main.o',
    '*** [.pioenvs/k/src/main.cpp.o] Error 139',
    'ld: /b/platformio/packages/x/lib/libc.a: file not recognized: file format not recognized',
    'ld: /b/arduino8266/toolchains/3/lib/libc.a: error adding symbols: malformed archive',
    "ERROR arduino8266 toolchain install is incomplete: missing bin/g++; run 'esphome clean-all' and retry",
    "ERROR The toolchain is missing the expected bin directory; run 'esphome clean-all' and retry",
  ];
  for (const line of broken) assert.equal(readMarks(noMarks, `${line}\n`).brokenTools, true, line);
  const others = [
    'src/main.cpp:3:10: fatal error: driver/nothing.h: No such file or directory',
    "FileNotFoundError: [Errno 2] No such file or directory: '/b/peer/kitchen/config/idf.h'",
    "ModuleNotFoundError: No module named 'my_component'",
    'WARNING /b/idf/tools/x: not found',
    '/b/idf/frameworks/x.cpp:1:2: error: something else: not found',
    'ld: cannot find -lmine: No such file or directory',
    'src/main.cpp:3:10: fatal error: my/string.h: No such file or directory',
    '/b/peer/kitchen/config/a.h:5:10: fatal error: b.h: No such file or directory',
    'src/main.cpp:9:1: internal compiler error: Segmentation fault',
    'ld: /b/peer/kitchen/config/mine.a: file not recognized: file format not recognized',
  ];
  for (const line of others) assert.equal(readMarks(noMarks, `${line}\n`).brokenTools, false, line);
});

test('A host that cannot be reached is recognized in the messages of ESPHome, PlatformIO, git and pip', () => {
  const failed = [
    'ERROR Failed to download https://x/y',
    'HTTPClientError: ',
    "VCSBaseException: VCS: Could not process command ['git', 'clone', 'https://x']",
    "fatal: unable to access 'https://x/': Could not resolve host: x",
    'ERROR Install requirements for v2.9.2 Python environment failure',
    'requests.exceptions.ConnectionError: HTTPSConnectionPool(host=x): Max retries exceeded with url: /',
    'OSError: [Errno 101] Network is unreachable',
  ];
  for (const line of failed) {
    const marks = readMarks(noMarks, `${line}\n`);
    assert.deepEqual([marks.downloadFailed, marks.brokenTools], [true, false], line);
  }
  const others = [
    'HTTPClientError: 404 for your file',
    'WARNING Retrying: Network is unreachable',
    'fatal: x',
  ];
  for (const line of others) assert.equal(readMarks(noMarks, `${line}\n`).downloadFailed, false, line);
});

test('The marks of a hostile line are read in linear time', () => {
  for (const piece of [
    '*** [',
    '/idf/',
    "'/idf/",
    ' /idf/a',
    'xtensa-',
    "No such file or directory: '",
    '/idf/a: ',
    'x: fatal error: ',
    '/toolchain-',
    '/toolchains/platformio/',
    'ERROR a ',
    ': cannot find -l',
  ]) {
    const read = (size: number): void => {
      const line = piece.repeat(size / piece.length);
      for (let round = 0; round < 20; round += 1) readMarks(noMarks, line);
    };
    assertLinear(read, 8_192, piece);
  }
});

test('A missing data directory is created by the compile', async (t) => {
  const { run, base } = await build(t, '');
  await mkdir(join(base, 'data'));
  assert.equal((await run()).exitCode, 0);
});
