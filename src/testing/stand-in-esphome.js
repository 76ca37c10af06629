#!/usr/bin/env node
/**
 * A STAND-IN for the `esphome` command: fast, and without a compiler. It proves nothing about ESPHome: tests of the
 * receiver use it, and tests of builds use the real ESPHome.
 *
 * It answers `version`, `config <yaml>` and `compile <yaml>` like ESPHome 2026.10 (streams, texts, exit codes, files,
 * `ESPHOME_DATA_DIR`), identifies itself in its output, and holds an exclusive file in the build directory while it runs:
 * a second compile there ends with 98. Comment lines in the YAML make it misbehave:
 *
 *     # stand-in: sleep=500 lines=10000 print=g++:_fatal_error:_Killed
 *
 * | knob | effect |
 * | --- | --- |
 * | `platform=esp32` | the tree of another platform |
 * | `sleep=MS`, `wait=FILE` | half-way: sleep; wait until FILE exists |
 * | `lines=N`, `print=TEXT` | half-way: N lines of output; one line, `_` for a space |
 * | `exit=N` | 2: an invalid configuration, nothing written; otherwise half-way, as a failed step |
 * | `tools` | installs into the shared tools of the platform, exclusively (otherwise 96), and fails if a file `broken` exists |
 * | `signal=NAME` | half-way: ends itself with that signal |
 * | `size=BYTES` | pads the firmware |
 * | `ignore-term`, `fork` | ignores SIGTERM; leaves a `sleep` in its own process group behind |
 * | `no-sidecar`, `no-firmware`, `link-out`, `elsewhere` | ends with 0, and the result is missing, a link, or not below `ESPHOME_DATA_DIR` |
 */

import { compile } from './stand-in-build.js';
import { isTrue, readNode } from './stand-in-node.js';
import { fail, failConfig, info, print } from './stand-in-output.js';
import { version } from './stand-in-tree.js';

const forbidden = 99;

process.exitCode = await main(process.argv.slice(2));

/** @param {string[]} words @returns {Promise<number>} the exit code */
async function main(words) {
  const args = withoutGlobalOptions(words);
  const [command, yaml] = args;
  if (command === 'version' || command === '--version') return print(`Version: ${version}`);
  if (command === 'clean' || command === 'clean-all') {
    return fail(`stand-in: "${command}" wipes what other devices share and is never to be run`, forbidden);
  }
  if (yaml === undefined || (command !== 'config' && command !== 'compile')) {
    return fail(
      `stand-in: usage: esphome [--dashboard] version|config|compile [yaml], not ${words.join(' ')}`,
      2,
    );
  }
  if (isTrue(process.env['ESPHOME_IS_HA_ADDON'])) {
    return fail('stand-in: ESPHOME_IS_HA_ADDON is set, so the real ESPHome would now use /data', 1);
  }
  info(`ESPHome ${version}`);
  info(`Reading configuration ${yaml}...`);
  const node = readNode(yaml);
  if (typeof node === 'string') return failConfig(node);
  if (node.knobs.get('exit') === '2') return failConfig('stand-in: told to fail');
  return command === 'config' ? showConfig(node) : compile(node, args.includes('--skip-bootloader'));
}

/** @param {string[]} words */
function withoutGlobalOptions(words) {
  const left = [...words];
  for (let first = left[0]; first !== undefined; first = left[0]) {
    if (first === '-l' || first === '--log-level') left.splice(0, 2);
    else if (['--dashboard', '-q', '--quiet', '-v', '--verbose'].includes(first)) left.shift();
    else break;
  }
  return left;
}

/** @param {import('./stand-in-node.js').Node} node */
function showConfig({ name, buildPath, target }) {
  return print(
    `esphome:\n  name: ${name}\n  build_path: ${buildPath}\n  friendly_name: ''\n${target.core}: {}\n`,
  );
}
