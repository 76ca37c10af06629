/**
 * Look-ups of the resolver a second, local and remote, beside the original's own `resolve_storage_path` when it is
 * installed (`npm run test:real` installs it). Fails when the ratio is under its limit.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';

import { createPaths } from '../src/paths/index.js';

const limit = 25;
const rounds = 5;
const id = 'k3Jx0Qm7vXb2Zr8TtLw5Yc1NsEaUdPfG';

/** The form that each side reads: the original knows no `config` folder. */
const asked = {
  local: { ours: 'kitchen.yaml', original: 'kitchen.yaml' },
  remote: {
    ours: `.esphome/.remote_builds/${id}/kitchen/config/kitchen.yaml`,
    original: `.esphome/.remote_builds/${id}/kitchen/kitchen.yaml`,
  },
};

const original = `
import sys, time
from pathlib import Path
from esphome.core import CORE
CORE.config_path = Path(sys.argv[1]) / "___"
from esphome_device_builder.helpers.storage_path import resolve_storage_path
for configuration in sys.argv[2:]:
    best = 0
    for _ in range(${rounds}):
        count, start = 20000, time.perf_counter()
        for _ in range(count):
            resolve_storage_path(configuration)
        best = max(best, count / (time.perf_counter() - start))
    print(round(best))
`;

function ours(configuration: string): number {
  const { resolveStoragePath } = createPaths({ configDir: '/config' });
  let best = 0;
  for (let round = 0; round < rounds; round += 1) {
    const count = 1_000_000;
    const start = performance.now();
    for (let n = 0; n < count; n += 1) resolveStoragePath(configuration);
    best = Math.max(best, (count / (performance.now() - start)) * 1000);
  }
  return Math.round(best);
}

/** The original's figures in the order of `asked`, or null when it is not installed. */
function originals(): number[] | null {
  const cache = process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache');
  const ready = join(cache, 'koa-esphome-receiver', 'device-builder-1.26.0', 'ready');
  if (!existsSync(ready)) return null;
  const configDir = mkdtempSync(join(tmpdir(), 'bench-paths-'));
  try {
    const words = ['-c', original, configDir, asked.local.original, asked.remote.original];
    const output = execFileSync(join(realpathSync(ready), 'bin', 'python'), words, { encoding: 'utf8' });
    return output.trim().split('\n').map(Number);
  } finally {
    rmSync(configDir, { recursive: true });
  }
}

const theirs = originals();
console.log('look-ups a second          ours     original   ratio   limit');
for (const [index, [kind, { ours: configuration }]] of Object.entries(asked).entries()) {
  const mine = ours(configuration);
  const their = theirs?.[index];
  const ratio = their === undefined ? null : mine / their;
  const shown = [kind.padEnd(20), String(mine).padStart(10), String(their ?? '-').padStart(12)];
  console.log([...shown, (ratio?.toFixed(1) ?? '-').padStart(8), String(limit).padStart(8)].join(''));
  if (ratio !== null && ratio < limit) process.exitCode = 1;
}
if (theirs === null) console.log('The original is not installed: npm run test:real installs it.');
