/** What a test hands to jobs: requests, bundles without files, and promises that it settles itself. */
import type { StagedBundle } from '../../src/bundles/store.js';
import type { JobRequest } from '../../src/jobs/record.js';
import { dashboardId, deviceFromFile, fileName } from '../../src/paths/index.js';
import type { World } from './harness.js';

let bundles = 0;

/** A bundle in a world. The remoteContent make the runner look before it compiles. */
export function bundleIn(
  world: Pick<World, 'staging' | 'pass'>,
  directory = `/staging/${(bundles += 1)}`,
): StagedBundle {
  if (directory.startsWith('/staging/')) world.staging.add(directory);
  const configFile = fileName('kitchen.yaml');
  return {
    ...{
      directory,
      bytes: 1,
      members: 1,
      remoteContent: { buildPath: true, remoteParts: false, webFiles: false },
    },
    contentSha256: 'c0'.repeat(32),
    leftOut: [],
    configFile,
    manifest: { manifestVersion: 1, configFilename: configFile, esphomeVersion: null },
    async discard() {
      await world.pass('discard');
      world.staging.delete(directory);
    },
    async settled() {},
    defer() {},
  };
}

export function exampleRequest(facts: Partial<JobRequest> & { readonly name?: string } = {}): JobRequest {
  const { name = 'kitchen.yaml', ...rest } = facts;
  const file = fileName(name);
  return {
    ...{ dashboardId: dashboardId('k3Jx0Qm7vXb2Zr8T'), peerLabel: 'Living room', peerJobId: 'job-1' },
    lane: 1,
    ...{ file, device: deviceFromFile(file), target: 'compile', bundleSha256: 'ab'.repeat(32) },
    ...{ targetVersion: '', skipBootloader: false, deviceName: 'kitchen', deviceFriendlyName: 'Kitchen' },
    ...rest,
  };
}

export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

export function deferred<T = void>(): Deferred<T> {
  let settle: Omit<Deferred<T>, 'promise'> | undefined;
  const promise = new Promise<T>((resolve, reject) => (settle = { resolve, reject }));
  return { promise, ...(settle as Omit<Deferred<T>, 'promise'>) };
}
