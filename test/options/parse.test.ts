/** Errors for invalid options: which option, what was expected, what was given. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { isReceiverError } from '../../src/errors.js';
import { resolveOptions } from '../../src/options/core.js';

function messageFor(options: unknown): string {
  try {
    resolveOptions(options as never);
  } catch (error) {
    assert.ok(isReceiverError(error, 'OPTIONS'), String(error));
    return error.message;
  }
  return assert.fail('nothing was refused');
}

const refusal = (options: object): string => messageFor({ configDir: '/config', ...options });

test('An invalid value is refused with what was expected and what was given', () => {
  const refused: readonly (readonly [options: object, message: string])[] = [
    [{ slots: 0 }, 'invalid slots: expected an integer from 1 to 64, got 0'],
    [{ slots: '4' }, 'invalid slots: expected an integer from 1 to 64, got "4"'],
    [{ slots: 1.5 }, 'invalid slots: expected an integer from 1 to 64, got 1.5'],
    [{ slots: NaN }, 'invalid slots: expected an integer from 1 to 64, got NaN'],
    [{ slots: [2] }, 'invalid slots: expected an integer from 1 to 64, got an array'],
    [{ slots: null }, 'invalid slots: expected an integer from 1 to 64, got null'],
    [{ bundleLimits: { ratio: 0 } }, 'invalid bundleLimits.ratio: expected an integer of at least 1, got 0'],
    [
      { bundleLimits: { packedBytes: 2 ** 27 + 1 } },
      'invalid bundleLimits.packedBytes: expected an integer from 1 to 134217728, got 134217729',
    ],
    [
      { connectionLimits: { strangers: 3 } },
      'invalid connectionLimits.strangers: expected an integer from 4 to 4096, got 3',
    ],
    [{ bundleLimits: 5 }, 'invalid bundleLimits: expected an object, got 5'],
    [
      { retention: { maxBuildBytes: 'all' } },
      'invalid retention.maxBuildBytes: expected an integer from 0 to 1125899906842624 or null, got "all"',
    ],
    [{ resultCache: 1 }, 'invalid resultCache: expected true or false, got 1'],
    [{ connectBack: 'yes' }, 'invalid connectBack: expected true or false, got "yes"'],
    [{ peerReset: 'mine' }, 'invalid peerReset: expected "own", "all" or "none", got "mine"'],
    [
      { friendlyName: 'x'.repeat(129) },
      `invalid friendlyName: expected a string of at most 128 characters, got "${'x'.repeat(80)}"… (129 characters)`,
    ],
    [{ buildsDir: '' }, 'invalid buildsDir: expected a path, got ""'],
    [{ buildsDir: 'a\0b' }, String.raw`invalid buildsDir: expected a path, got "a\u0000b"`],
    [
      { esphome: 5 },
      'invalid esphome: expected a command, or an array of a program and its arguments, got 5',
    ],
    [
      { esphome: [] },
      'invalid esphome: expected a command, or an array of a program and its arguments, got an array',
    ],
    [
      { passEnvironment: ['PATH', 'A B'] },
      'invalid passEnvironment[1]: expected the name of an environment variable, got "A B"',
    ],
    [
      { log: { info() {} } },
      'invalid log: expected an object with the functions debug, info, warn and error, got an object',
    ],
    [
      { log: () => {} },
      'invalid log: expected an object with the functions debug, info, warn and error, got a function',
    ],
  ];
  for (const [options, message] of refused) assert.equal(refusal(options), message);
});

test('The configuration directory is required', () => {
  assert.equal(messageFor({}), 'invalid configDir: expected a path, got undefined');
  assert.equal(messageFor(undefined), 'invalid options: expected an object, got undefined');
});

test('An unknown name gets the nearest name as a suggestion, else a list of all names', () => {
  const refused: readonly (readonly [options: object, message: string])[] = [
    [{ slot: 2 }, 'unknown option "slot" (did you mean "slots"?)'],
    [{ Slots: 2 }, 'unknown option "Slots" (did you mean "slots"?)'],
    [{ maxJobPerPeers: 2 }, 'unknown option "maxJobPerPeers" (did you mean "maxJobsPerPeer"?)'],
    [{ config: '/x' }, 'unknown option "config" (did you mean "configDir"?)'],
    [{ bundleLimits: { depht: 3 } }, 'unknown option "bundleLimits.depht" (did you mean "depth"?)'],
  ];
  for (const [options, message] of refused) assert.equal(refusal(options), message);
  assert.match(
    refusal({ colour: 'red' }),
    /^unknown option "colour" \(allowed: configDir, buildsDir, .*, log\)$/,
  );
  assert.equal(
    refusal({ connectionLimits: { crowd: 9 } }),
    'unknown option "connectionLimits.crowd" (allowed: sockets, strangers, strangersPerAddress, handshakesPerSecond, handshakeTimeoutMs, pairingRequests, waitersPerRequest)',
  );
});

test('A hostile name is shown in one line and bounded', () => {
  const message = refusal({ ['\u001b[2J\n'.repeat(1_000)]: 1 });
  assert.doesNotMatch(message, /[^\x20-\x7e…]/);
  assert.ok(message.length < 2_000);
});

test('All faults are reported at once', () => {
  assert.equal(
    refusal({ slots: 0, haAddon: 'no' }),
    'invalid haAddon: expected true or false, got "no"; invalid slots: expected an integer from 1 to 64, got 0',
  );
});

test('An invalid environment variable is named, but its value is not shown', () => {
  const message = refusal({ environment: { WIFI_PASSWORD: 31_415_926 } });
  assert.equal(message, 'invalid environment.WIFI_PASSWORD: expected a string, got a value of type number');
});
