/**
 * Properties of the files that a bundle or a build brings, whatever they contain, as functions with a number of
 * runs: `npm test` does a hundred, `npm run fuzz` hundreds of thousands.
 */
import assert from 'node:assert/strict';

import fc from 'fast-check';

import { isReceiverError, type ErrorCode } from '../../src/errors.js';
import { parseManifest } from '../../src/esphome/manifest.js';
import { parseStorage } from '../../src/esphome/storage-json.js';
import { hostileText } from '../support/hostile.js';

const json = (value: unknown): string => JSON.stringify(value);

/** Any bytes give a manifest or a typed refusal. */
export function anyBytesGiveAManifestOrARefusal(numRuns: number): void {
  const object = fc.record(
    {
      manifest_version: fc.oneof(fc.constant(1), fc.jsonValue()),
      config_filename: fc.oneof(hostileText, fc.jsonValue()),
      esphome_version: fc.jsonValue(),
    },
    { requiredKeys: [] },
  );
  assertReadOrRefused(object.map(json), 'BUNDLE', numRuns, (bytes) => {
    const { manifestVersion, configFilename } = parseManifest(bytes);
    assert.equal(manifestVersion, 1);
    assert.ok(!/[/\\\0]/.test(configFilename), 'the configuration is a leaf');
  });
}

/** Any bytes give a sidecar or a typed refusal. */
export function anyBytesGiveASidecarOrARefusal(numRuns: number): void {
  const keys = ['storage_version', 'build_path', 'loaded_integrations', 'src_version', 'no_mdns'];
  const object = fc.dictionary(fc.constantFrom(...keys, '__proto__', 'x'), fc.jsonValue());
  const texts = object.map((fields) => json({ storage_version: 1, ...fields }));
  assertReadOrRefused(texts, 'STORAGE', numRuns, (bytes) => {
    const { buildPath, loadedIntegrations } = parseStorage(bytes);
    assert.ok(buildPath === null || typeof buildPath === 'string');
    assert.ok(loadedIntegrations.every((name) => typeof name === 'string'));
  });
}

function assertReadOrRefused(
  likely: fc.Arbitrary<string>,
  code: ErrorCode,
  numRuns: number,
  read: (bytes: Buffer) => void,
): void {
  const cut = fc.tuple(likely, fc.nat()).map(([whole, at]) => whole.slice(0, at % (whole.length + 1)));
  const deep = fc.nat(20_000).map((depth) => '[{"x":'.repeat(depth));
  const text = fc.oneof(...[likely, fc.json(), cut].map((arbitrary) => ({ weight: 20, arbitrary })), {
    weight: 1,
    arbitrary: deep,
  });
  const bytes = fc.oneof(
    { weight: 4, arbitrary: text.map((all) => Buffer.from(all)) },
    { weight: 1, arbitrary: fc.uint8Array().map((all) => Buffer.from(all)) },
  );
  fc.assert(
    fc.property(bytes, (any) => {
      try {
        read(any);
      } catch (error) {
        assert.ok(isReceiverError(error, code), String(error));
      }
    }),
    { numRuns },
  );
}
