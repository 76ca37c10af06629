/**
 * What the list shows of each device. Every look-up goes through the hook, so the same code serves the dashboard's own
 * configurations and those of peers. If something cannot be shown, the list names the missing file.
 */
import { readdir } from 'node:fs/promises';

import { isReceiverError, type HostPaths, type Receiver } from 'koa-esphome-receiver';

export interface Known {
  /** Names the device in every route. */
  readonly configuration: string;
  /** Null for the dashboard's own; else what the peer calls itself. */
  readonly peer: string | null;
}

export interface Device extends Known {
  readonly name: string;
  readonly platform: string | null;
  readonly esphomeVersion: string | null;
  readonly configHash: string | null;
  readonly bytes: number | null;
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
  /** One sentence for each thing that is missing or refused. */
  readonly problems: readonly string[];
}

/** The dashboard's own YAML files, then the builds of peers. */
export async function knownDevices({ paths, hostPaths, peers }: Receiver): Promise<readonly Known[]> {
  const entries = await readdir(paths.configDir, { withFileTypes: true });
  const own = entries
    .filter((entry) => entry.isFile() && isConfiguration(entry.name))
    .map(({ name }) => name);
  const labels = new Map<string, string>(peers.list().map(({ dashboardId, label }) => [dashboardId, label]));
  const remote = (await hostPaths.listRemote()).map((configuration) => {
    const id = paths.parseConfiguration(configuration)?.dashboardId ?? '';
    return { configuration, peer: labels.get(id) || id };
  });
  return [...own.toSorted().map((configuration) => ({ configuration, peer: null })), ...remote];
}

/** ESPHome ignores hidden files, and `secrets.yaml` is not a device. */
function isConfiguration(file: string): boolean {
  return /^[^.].*\.ya?ml$/.test(file) && !/^secrets\.ya?ml$/.test(file);
}

export async function describe(paths: HostPaths, known: Known): Promise<Device> {
  const { configuration } = known;
  const problems = new Set<string>();
  async function ask<T>(reading: Promise<T>): Promise<T | null> {
    try {
      return await reading;
    } catch (error) {
      if (!isReceiverError(error)) throw error;
      problems.add(error.message);
      return null;
    }
  }
  const storage = await ask(paths.loadStorage(configuration));
  const usage = await ask(paths.buildSize(configuration));
  const configHash = await ask(paths.configHash(configuration));
  const artifacts = await ask(paths.loadBuildArtifacts(configuration));
  return {
    ...known,
    name: storage?.friendlyName ?? storage?.name ?? configuration.slice(configuration.lastIndexOf('/') + 1),
    platform: storage?.espPlatform ?? null,
    esphomeVersion: storage?.esphomeVersion ?? null,
    configHash,
    bytes: usage?.bytes ?? null,
    files: artifacts?.files.map(({ name, bytes }) => ({ name, bytes })) ?? [],
    problems: [...problems],
  };
}
