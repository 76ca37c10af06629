/**
 * Lets the real Device Builder unpack archives the way it does after a remote job: its own code writes its own
 * build tree, and its own answer is the verdict. One start of Python serves all of them.
 */
import { dirname, join } from 'node:path';

import { execa } from 'execa';

import { realDeviceBuilder } from './support.js';

export interface Delivery {
  readonly title: string;
  /** The file that the receiver sent. */
  readonly archive: string;
  /** The configuration directory of the dashboard that sent the build away. */
  readonly configDir: string;
  readonly configuration: string;
  /** Of ESPHome's components the one that knows what can be downloaded; null when there is none. */
  readonly component: string | null;
}

export interface Verdict {
  /** Null when the archive was accepted. */
  readonly refusal: string | null;
  /** What the dashboard then offers for download: the files that ESPHome lists and that are there. */
  readonly downloads: readonly string[];
}

const unpacker = `
import json, sys
from importlib import import_module
from pathlib import Path
from esphome.core import CORE
from esphome.storage_json import StorageJSON
from esphome_device_builder.helpers.remote_artifacts_materialise import MaterialiseError, materialise_remote_artifacts
from esphome_device_builder.helpers.storage_path import resolve_storage_path

def downloads(storage, component):
    if component is None:
        return []
    types = import_module("esphome.components." + component).get_download_types(storage)
    return [t["file"] for t in types if (storage.firmware_bin_path.parent / t["file"]).is_file()]

def unpack(delivery):
    CORE.config_path = Path(delivery["configDir"]) / "dashboard.yaml"
    configuration = delivery["configuration"]
    try:
        materialise_remote_artifacts(Path(delivery["archive"]).read_bytes(), configuration)
    except MaterialiseError as error:
        return {"refusal": str(error), "downloads": []}
    storage = StorageJSON.load(resolve_storage_path(configuration))
    return {"refusal": None, "downloads": downloads(storage, delivery["component"])}

print(json.dumps([[delivery["title"], unpack(delivery)] for delivery in json.load(sys.stdin)]))
`;

/** The verdicts by the titles of the deliveries. */
export async function unpackAll(deliveries: readonly Delivery[]): Promise<ReadonlyMap<string, Verdict>> {
  const [program] = await realDeviceBuilder();
  const python = join(dirname(program), 'python');
  // Nothing of this machine's environment: a data directory set there would be the dashboard's.
  const options = { input: JSON.stringify(deliveries), env: { PATH: '/usr/bin:/bin' }, extendEnv: false };
  const { stdout } = await execa(python, ['-c', unpacker], options);
  return new Map(JSON.parse(stdout) as [string, Verdict][]);
}
