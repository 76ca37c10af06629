/**
 * The shared tools of the stand-in, in the platform's directory from the environment. It installs only one file, and a
 * second file excludes others meanwhile: two simultaneous first builds fail loudly, where real ones silently leave half of
 * a toolchain.
 */
import * as fs from 'node:fs';
import path from 'node:path';

import { fail, print } from './stand-in-output.js';

const sharedInstallation = 96;

/**
 * @param {import('./stand-in-node.js').Node} node
 * @param {() => Promise<number>} steps the build itself, which runs while the tools are installed
 * @returns {Promise<number>} the exit code
 */
export async function withTools({ knobs, target }, steps) {
  if (!knobs.has('tools')) return steps();
  const variable = target.toolchain === 'esp-idf' ? 'ESPHOME_ESP_IDF_PREFIX' : 'PLATFORMIO_CORE_DIR';
  const directory = String(process.env[variable]);
  const installed = path.join(directory, 'installed');
  const installing = path.join(directory, 'installing');
  if (fs.existsSync(path.join(directory, 'broken'))) {
    print(`/bin/sh: 1: ${directory}/bin/g++: not found`);
    return fail('stand-in: the tools are broken', 1);
  }
  if (fs.existsSync(installed)) return steps();
  fs.mkdirSync(directory, { recursive: true });
  try {
    fs.writeFileSync(installing, '', { flag: 'wx' });
  } catch {
    return fail(`stand-in: another compile installs tools in ${directory}`, sharedInstallation);
  }
  print('stand-in: installs its tools');
  const code = await steps();
  fs.rmSync(installing, { force: true });
  if (code === 0) fs.writeFileSync(installed, '');
  return code;
}
