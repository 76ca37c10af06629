/** Resolving a host's options: defaults, limits, paths, and inputs that stay unchanged. */
import assert from 'node:assert/strict';
import { hostname } from 'node:os';
import { test } from 'node:test';

import type { CoreOptions } from '../../src/options/core-options.js';
import { changeRetention, resolveOptions } from '../../src/options/core.js';
import { silentLog } from '../../src/log.js';

const configDir = '/config/esphome';

test('A host that sets nothing gets all defaults, as documented', () => {
  const { environment, slots, friendlyName, log, ...rest } = resolveOptions({ configDir });
  assert.deepEqual(environment, { ...process.env });
  assert.equal(friendlyName, hostname().split('.')[0]);
  assert.ok(slots >= 1 && slots <= 64);
  assert.equal(log, silentLog);
  assert.deepEqual(rest, {
    configDir,
    stateDir: `${configDir}/.esphome-receiver`,
    newIdentity: false,
    takeOver: undefined,
    passEnvironment: [],
    lanes: 1,
    haAddon: false,
    pairingByKey: false,
    minFreeMemoryBytes: 1_000_000_000,
    minFreeDiskBytes: 500_000_000,
    compileTimeoutMs: 3_600_000,
    silenceTimeoutMs: 1_200_000,
    maxOutputBytes: 8_388_608,
    maxJobsPerPeer: 100,
    maxUploadsPerPeer: 8,
    bundleLimits: {
      packedBytes: 134_217_728,
      unpackedBytes: 524_288_000,
      members: 20_000,
      depth: 64,
      segmentBytes: 255,
      pathBytes: 4_096,
      ratio: 200,
      ratioFreeBytes: 134_217_728,
      manifestBytes: 1_048_576,
      uploadTimeoutMs: 900_000,
    },
    peerReset: 'own',
    connectionLimits: {
      sockets: 1_024,
      strangers: 64,
      strangersPerAddress: 16,
      handshakesPerSecond: 20,
      handshakeTimeoutMs: 10_000,
      pairingRequests: 32,
      waitersPerRequest: 4,
    },
    provisionVersions: true,
    maxVersions: 3,
    resultTtlMs: 2_592_000_000,
    maxResultsPerPeer: 50,
    retention: {
      buildTtlMs: 86_400_000,
      maxBuildBytes: null,
      maxBuildBytesPerPeer: null,
      maxResultBytes: null,
      toolTtlMs: 2_592_000_000,
      maxToolBytes: null,
    },
    resultCache: true,
    absentPeerGraceMs: 600_000,
    connectBack: false,
    lockStaleMs: 10_000,
  });
});

test('An undefined option gets its default, and so does a limit that is not named', () => {
  const usual = resolveOptions({ configDir });
  const nothing = Object.fromEntries(Object.keys(usual).map((name) => [name, undefined]));
  assert.deepEqual(resolveOptions({ ...nothing, configDir }), usual);

  const changed = resolveOptions({
    configDir,
    bundleLimits: { depth: 3 },
    connectionLimits: { strangers: 9 },
    retention: { maxToolBytes: 5 },
  });
  assert.deepEqual(changed.bundleLimits, { ...usual.bundleLimits, depth: 3 });
  assert.deepEqual(changed.connectionLimits, { ...usual.connectionLimits, strangers: 9 });
  assert.deepEqual(changed.retention, { ...usual.retention, maxToolBytes: 5 });
});

test('Each limit has a default, a minimum and a maximum, and values outside are refused', () => {
  const limits = {
    slots: [undefined, 1, 64],
    compileTimeoutMs: [3_600_000, 1_000, 86_400_000],
    silenceTimeoutMs: [1_200_000, 1_000, 86_400_000],
    maxOutputBytes: [8_388_608, 65_536, 67_108_864],
    maxJobsPerPeer: [100, 1, 10_000],
    maxUploadsPerPeer: [8, 2, 64],
    maxResultsPerPeer: [50, 1, 10_000],
    resultTtlMs: [2_592_000_000, 3_600_000, 31_536_000_000],
    absentPeerGraceMs: [600_000, 10_000, 86_400_000],
    maxVersions: [3, 1, 100],
    lockStaleMs: [10_000, 2_000, 600_000],
    minFreeMemoryBytes: [1_000_000_000, 0, 2 ** 40],
    minFreeDiskBytes: [500_000_000, 0, 2 ** 40],
  } as const;
  const defaults = resolveOptions({ configDir });
  for (const [name, [usual, least, most]] of Object.entries(limits)) {
    if (usual !== undefined) assert.equal(defaults[name as keyof typeof limits], usual, name);
    for (const wrong of [least - 1, most + 1, least + 0.5])
      assert.throws(
        () => resolveOptions({ configDir, [name]: wrong }),
        {
          code: 'OPTIONS',
          message: `invalid ${name}: expected an integer from ${least} to ${most}, got ${wrong}`,
        },
        `${name} ${wrong}`,
      );
    for (const right of [least, most]) {
      const read = resolveOptions({ configDir, [name]: right });
      assert.equal(read[name as keyof typeof limits], right);
    }
  }
});

test('The paths of the state are absolute, and the host’s object is not changed', () => {
  const given = Object.freeze({
    configDir: 'here',
    stateDir: 'there',
    takeOver: 'old',
    bundleLimits: Object.freeze({}),
  });
  const read = resolveOptions(given);
  const cwd = process.cwd();
  assert.deepEqual(
    [read.configDir, read.stateDir, read.takeOver],
    [`${cwd}/here`, `${cwd}/there`, `${cwd}/old`],
  );
  assert.deepEqual(given.bundleLimits, {});
  assert.ok(Object.isFrozen(read) && Object.isFrozen(read.bundleLimits) && Object.isFrozen(read.retention));
});

test('The environment is a copy from when the receiver was created', () => {
  const environment: NonNullable<CoreOptions['environment']> = { PATH: '/bin', EMPTY: undefined };
  const read = resolveOptions({ configDir, environment });
  assert.deepEqual(read.environment, environment);
  assert.notEqual(read.environment, environment);
});

test('Changing some retention limits keeps the others, and an invalid limit changes nothing', () => {
  const { retention } = resolveOptions({ configDir, retention: { buildTtlMs: 7_200_000, maxBuildBytes: 9 } });
  const changed = changeRetention(retention, { maxBuildBytes: null, maxToolBytes: 3, toolTtlMs: undefined });
  assert.deepEqual(changed, { ...retention, maxBuildBytes: null, maxToolBytes: 3 });
  assert.ok(Object.isFrozen(changed));
  assert.deepEqual(changeRetention(retention, {}), retention);
  const wrong: readonly (readonly [changes: unknown, message: string])[] = [
    [{ buildTtlMs: 1 }, 'invalid buildTtlMs: expected an integer from 3600000 to 2592000000, got 1'],
    [{ toolTtlMs: null }, 'invalid toolTtlMs: expected an integer from 86400000 to 31536000000, got null'],
    [
      { maxBuildBytes: -1 },
      'invalid maxBuildBytes: expected an integer from 0 to 1125899906842624 or null, got -1',
    ],
    [{ buildTtl: 5 }, 'unknown option "buildTtl" (did you mean "buildTtlMs"?)'],
    [5, 'invalid options: expected an object, got 5'],
  ];
  for (const [changes, message] of wrong) {
    assert.throws(() => changeRetention(retention, changes), { code: 'OPTIONS', message });
  }
});
