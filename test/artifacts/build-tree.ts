/** A finished build on disk, as ESPHome leaves it; the contents identify the files. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { createPaths, dashboardId, deviceFromFile, type Paths } from '../../src/paths/index.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';

export interface BuildTree {
  readonly paths: Paths;
  readonly configuration: string;
  /** The data directory of the device. */
  readonly dataDir: string;
  readonly buildPath: string;
  /** Writes files, relative to the data directory. A file's default content is its own path. */
  add(...files: readonly (string | readonly [path: string, content: string])[]): Promise<void>;
}

export interface BuildFacts {
  readonly espPlatform: string;
  readonly toolchain: string | null;
  /** Below the build path. */
  readonly firmware: string;
  /** Overrides fields of the sidecar. */
  readonly sidecar?: Readonly<Record<string, unknown>>;
}

const file = 'kitchen-yaml.yaml';
export const node = 'kitchen';

export async function buildTree(t: Cleanups, facts: BuildFacts): Promise<BuildTree> {
  const paths = createPaths({ configDir: await tempDir(t) });
  const key = { dashboardId: dashboardId('dashboard-1'), device: deviceFromFile(file) };
  const configuration = paths.formatConfiguration(key, file);
  const dataDir = paths.resolveDataDir(configuration);
  const buildPath = join(dataDir, 'build', node);
  const sidecar = {
    storage_version: 1,
    name: node,
    esp_platform: facts.espPlatform,
    toolchain: facts.toolchain,
    build_path: buildPath,
    firmware_bin_path: join(buildPath, facts.firmware),
    ...facts.sidecar,
  };
  const tree: BuildTree = {
    paths,
    configuration,
    dataDir,
    buildPath,
    async add(...files) {
      for (const entry of files) {
        const [path, content] = typeof entry === 'string' ? [entry, entry] : entry;
        await mkdir(dirname(join(dataDir, path)), { recursive: true });
        await writeFile(join(dataDir, path), content);
      }
    },
  };
  await mkdir(buildPath, { recursive: true });
  await tree.add([`storage/${file}.json`, `${JSON.stringify(sidecar, null, 2)}\n`]);
  return tree;
}

/** Where ESPHome keeps the validated configuration, relative to the data directory. */
export const validated = { json: `storage/${file}.validated.json`, yaml: `storage/${file}.validated.yaml` };
export const sidecarFile = `storage/${file}.json`;

/** Files below the build path, as {@link BuildTree.add} takes them. */
export function built(...files: readonly string[]): readonly string[] {
  return files.map((path) => `build/${node}/${path}`);
}
