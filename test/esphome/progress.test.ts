/** Progress of a compile, read from its output. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import {
  compilePhases,
  plainText,
  readProgress,
  startOfProgress,
  type Progress,
} from '../../src/esphome/progress.js';
import { assertLinear } from '../support/linear.js';

function run(lines: readonly string[], expected = 0): Progress {
  return lines.reduce(readProgress, startOfProgress(expected));
}

function trail(lines: readonly string[], expected = 0): string[] {
  let progress = startOfProgress(expected);
  return lines.map((line) => {
    progress = readProgress(progress, line);
    return progress.percent === null ? progress.phase : `${progress.phase} ${progress.percent}`;
  });
}

const opening = [
  '\\033[32mINFO ESPHome 2026.10.0\\033[0m\n',
  '\\033[32mINFO Reading configuration /c/kitchen.yaml...\\033[0m\n',
  '\x1b[32mINFO Generating C++ source...\x1b[0m\n',
  '\\033[32mINFO Compiling app... Build path: /d/build/kitchen\\033[0m\n',
];

test('A small host build goes through its phases and counts from its first step', () => {
  const lines = [
    ...opening,
    '[1/28] PCH esphome_pch.h.gch\n',
    '[14/28] CXX obj/src/a.cpp.o\n',
    '[28/28] LINK program\n',
  ];
  assert.deepEqual(trail([...lines, "INFO Successfully compiled program to path '/d/program'\n"]), [
    ...['starting', 'validating', 'generating', 'preparing'],
    ...['compiling 3', 'compiling 50', 'compiling 100', 'done 100'],
  ]);
});

test("CMake's re-runs and sub-builds do not move the bar; its main build does, with carriage returns and codes", () => {
  const lines = [
    ...opening,
    'INFO Checking ESP-IDF 5.5.6 framework...\n',
    'INFO Reading CMake configuration\n',
    '\r[0/1] Re-running CMake...\\033[K',
    '\r[1/1] Re-running CMake...\\033[K',
    '\r[300/1200] Building CXX object esp-idf/a.cpp.obj\\033[K',
    '[130/131] Linking C executable bootloader.elf\n',
    '\r[301/1200] Building CXX object esp-idf/b.cpp.obj\\033[K',
    '\r[1200/1200] Generating binary image\\033[K',
  ];
  assert.deepEqual(trail(lines).slice(4), [
    ...['toolchain', 'configuring', 'configuring', 'configuring'],
    ...['compiling 25', 'compiling 25', 'compiling 25', 'compiling 100'],
  ]);
});

test('PlatformIO is measured against the previous build, and stays below 100 percent', () => {
  const lines = [
    'Library Manager: Installing x\n',
    ...Array.from({ length: 12 }, (_, n) => `Compiling .pioenvs/k/${n}.o\n`),
  ];
  assert.deepEqual(trail(lines, 10).slice(0, 3), ['toolchain', 'compiling 10', 'compiling 20']);
  assert.equal(run(lines, 10).percent, 99);
  assert.equal(run(lines).percent, null);
  assert.equal(run(lines).compiled, 12);
});

test('Only a percentage in leading brackets is progress, not sizes, unpacking or memory use', () => {
  const before = run([...opening, '[ 42%] Building\n']);
  assert.equal(before.percent, 42);
  for (const line of [
    'RAM:   [=  ]  11.3% (used 37152 bytes)',
    'Unpacking [##] 50%',
    '[900%] x',
    '[3/2] CXX a',
    '[0/0] CXX a',
    '[1/x] CXX',
  ]) {
    assert.equal(readProgress(before, line), before, line);
  }
});

test('A line that changes nothing gives the same object', () => {
  const progress = run(opening);
  for (const line of [
    '',
    'hello\n',
    'INFO Reading configuration again\n',
    '[1/2] sub-build\n',
    'Downloading\0',
  ]) {
    if (line.startsWith('Downloading')) continue;
    assert.equal(readProgress(progress, line), progress, line);
  }
});

test('Both spellings of the escape character are removed, but only in complete codes', () => {
  assert.equal(plainText('\\033[1;31mERROR\\033[0m \x1b[2Kx\x1b[K'), 'ERROR x');
  assert.equal(plainText('\\033[31'), '\\033[31');
  assert.equal(plainText('see \x1b]8;;https://esphome.io\x07the docs\x1b]8;;\x1b\\ now'), 'see the docs now');
  assert.equal(plainText('\x1b[38:5:208morange\x1b[0m'), 'orange');
  assert.equal(plainText('\x1b]0;unfinished\nnext'), '\x1b]0;unfinished\nnext');
});

test('Whatever a build prints, neither the phase nor its percentage goes back', () => {
  const line = fc.oneof(
    fc.constantFrom(
      ...opening,
      'Downloading x',
      'Compiling a.o',
      'ninja: no work to do.',
      'INFO Successfully compiled program.',
    ),
    fc
      .tuple(fc.nat(300), fc.nat(300), fc.constantFrom('CXX a', 'Building'))
      .map(([n, m, text]) => `[${n}/${m}] ${text}`),
    fc.nat(120).map((n) => `[${String(n).padStart(3)}%] x`),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 40 }), fc.nat(20), (lines, expected) => {
      let before = startOfProgress(expected);
      for (const text of lines) {
        const after = readProgress(before, text);
        const [from, to] = [before, after].map(({ phase }) => compilePhases.indexOf(phase)) as [
          number,
          number,
        ];
        assert.ok(to >= from);
        if (to === from) assert.ok((after.percent ?? -1) >= (before.percent ?? -1));
        assert.ok(after.percent === null || (after.percent >= 0 && after.percent <= 100));
        before = after;
      }
    }),
  );
});

const noise = fc.constantFrom(
  'INFO Compiling with a precompiled header (x)',
  'src/main.cpp:3:1: warning: unused [-Wunused]',
  'Flash: [===  ]  41.2% (used 1 bytes)',
  '[1/1] Re-running CMake...',
  '[7/9] Performing build step',
  '',
);
const dress = fc.constantFrom<(line: string) => string>(
  (line) => `${line}\n`,
  (line) => `\r${line}\\033[K`,
  (line) => `\x1b[32m${line}\x1b[0m\r\n`,
);

test('A host build of any size shows each of its steps, with any terminal codes and between any lines', () => {
  const step = fc.constantFrom('PCH', 'CC', 'CXX', 'AS', 'AR', 'LINK');
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 2_000 }),
      fc.array(fc.tuple(step, dress, fc.array(noise, { maxLength: 2 })), { minLength: 1, maxLength: 20 }),
      (total, dresses) => {
        let progress = run(opening);
        for (let n = 1; n <= total; n += 1) {
          const [word, dressed, between] = dresses[n % dresses.length] as (typeof dresses)[number];
          progress = readProgress(progress, dressed(`[${n}/${total}] ${word} obj/src/a.o`));
          for (const line of between) progress = readProgress(progress, dressed(line));
          assert.deepEqual(
            [progress.phase, progress.percent, progress.compiled, progress.total],
            ['compiling', Math.floor((n / total) * 100), n, total],
          );
        }
      },
    ),
    { numRuns: 50 },
  );
});

test('PlatformIO counts its files against the previous build, never backwards and to 100 percent only at the end', () => {
  fc.assert(
    fc.property(
      fc.nat(60),
      fc.nat(60),
      dress,
      fc.array(noise, { maxLength: 2 }),
      (expected, files, dressed, between) => {
        let progress = run([...opening, 'Library Manager: Installing x\n'], expected);
        for (let n = 1; n <= files; n += 1) {
          progress = readProgress(progress, dressed(`Compiling .pioenvs/k/src/${n}.cpp.o`));
          for (const line of between) progress = readProgress(progress, dressed(line));
          assert.deepEqual([progress.phase, progress.compiled, progress.total], ['compiling', n, 0]);
          assert.equal(
            progress.percent,
            expected === 0 ? null : Math.min(99, Math.floor((n / expected) * 100)),
          );
        }
        progress = readProgress(progress, 'INFO Successfully compiled program.');
        assert.deepEqual([progress.phase, progress.percent], ['done', 100]);
      },
    ),
  );
});

test('A hostile line is read in linear time', () => {
  for (const piece of ['\\033[', '\x1b[0;', '[1/', 'Compiling', '[ 1%'])
    assertLinear((size) => void readProgress(startOfProgress(), piece.repeat(size)), 20_000, piece);
});
