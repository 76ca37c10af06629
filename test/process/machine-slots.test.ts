/** The defaults that depend on the machine. */
import assert from 'node:assert/strict';
import { hostname } from 'node:os';
import { test } from 'node:test';

import { compilersPerBuild, defaultSlots, machineName } from '../../src/process/machine.js';

test('The number of slots depends on processors and memory, and is at least one', () => {
  const divided = ([cores, gigabytes]: readonly [number, number]): readonly [number, number | null] => {
    const machine = { cores, memoryBytes: gigabytes * 1e9 };
    const slots = defaultSlots(machine);
    return [slots, compilersPerBuild(slots, machine)];
  };
  const machines = [
    [1, 1],
    [2, 24],
    [4, 4],
    [8, 16],
    [8, 4],
    [16, 10],
    [6, 64],
    [10, 64],
    [1024, 4096],
  ] as const;
  assert.deepEqual(machines.map(divided), [
    ...[
      [1, null],
      [1, null],
      [1, null],
      [2, 4],
      [1, null],
      [3, 6],
      [1, null],
      [2, 5],
      [64, 16],
    ],
  ]);
});

test('The default name of the machine is the first label of its host name', () => {
  assert.equal(machineName(), hostname().split('.')[0]);
});
