/** The flags of `serve`: how they are read, and that the help lists all of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { readFlags, serveHelp } from '../../src/cli/flags.js';

const flags = [
  '--port',
  '--host',
  '--esphome',
  '--take-over',
  '--new-identity',
  '--lanes',
  '--git-config',
  '--connect-back',
  '--announce',
  '--admin',
  '--json',
];

test('Without flags, `serve` uses the defaults', () => {
  assert.deepEqual(readFlags(['dir']), {
    ...{ directory: 'dir', port: 6055, host: '0.0.0.0', connectBack: false, announce: false, json: false },
    ...{ esphome: undefined, takeOver: undefined, newIdentity: false, admin: undefined },
    ...{ lanes: 1, gitConfig: undefined },
  });
});

test('Each flag is read as its option, with numbers as numbers', () => {
  const words =
    '--port 0 --host ::1 --esphome esp --take-over old --new-identity --lanes 3 --git-config git --connect-back --announce --admin 80 --json dir';
  assert.deepEqual(readFlags(words.split(' ')), {
    ...{ directory: 'dir', port: 0, host: '::1', esphome: 'esp', takeOver: 'old' },
    ...{
      newIdentity: true,
      lanes: 3,
      gitConfig: 'git',
      connectBack: true,
      announce: true,
      admin: 80,
      json: true,
    },
  });
});

test('The error for an invalid flag has its name as written and the expected value', () => {
  const refused: readonly (readonly [words: string[], message: string])[] = [
    [['dir', '--port', 'abc'], 'invalid --port: expected an integer from 0 to 65535, got "abc"'],
    [['dir', '--port', '70000'], 'invalid --port: expected an integer from 0 to 65535, got 70000'],
    [['dir', '--port', '1e3'], 'invalid --port: expected an integer from 0 to 65535, got "1e3"'],
    [
      ['dir', '--admin', '-1'.replace('-', '+')],
      'invalid --admin: expected an integer from 0 to 65535, got "+1"',
    ],
    [['dir', '--take-over', ''], 'invalid --take-over: expected a path, got ""'],
    [['dir', '--host', ''], 'invalid --host: expected an address, got ""'],
    [[], 'invalid arguments: expected one directory, got 0'],
    [['one', 'two'], 'invalid arguments: expected one directory, got 2'],
  ];
  for (const [words, message] of refused) {
    assert.throws(() => readFlags(words), { code: 'OPTIONS', message }, words.join(' '));
  }
});

test('The help names every flag once, with its default and its limits, in lines of 80 columns', () => {
  const help = serveHelp();
  const named = [...help.matchAll(/^ {2}(--[a-z-]+)/gm)].map(([, flag]) => flag);
  assert.deepEqual(named, flags);
  assert.match(help.replace(/\s+/g, ' '), /--port PORT .* Range: 0 to 65535\. Default: 6055\./);
  assert.doesNotMatch(help, /`/);
  assert.ok(help.split('\n').every((line) => line.length <= 80));
});
