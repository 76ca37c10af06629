/**
 * Jobs on real files in a process that waits to be killed, one site for each step: two jobs have come to the step, where
 * they stay, and a third one waits for a slot. Argument: the directory of the sites, each of which is named after its
 * step. Then it prints `held`.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { collectArtifacts } from '../../src/artifacts/collect.js';
import { createArtifactStore } from '../../src/artifacts/store.js';
import type { RunnerDeps } from '../../src/jobs/runner.js';
import { createPaths } from '../../src/paths/index.js';
import { waitFor } from '../support/wait-for.js';
import { host, quickLocks, site } from './site.js';

const [root = ''] = process.argv.slice(2);

type Hold = () => Promise<never>;

const steps: Readonly<Record<string, (hold: Hold, base: string) => Partial<RunnerDeps>>> = {
  'waiting for the lock': (hold) => ({ acquireLease: hold }),
  'losing bundles': (hold) => ({ installBundle: hold }),
  'packing the result': (hold) => ({ storeArtifacts: hold }),
  'after the result is kept': (hold, base) => ({
    async storeArtifacts(id, configuration) {
      const paths = createPaths({ configDir: join(base, 'config') });
      const store = createArtifactStore(paths.layout.artifactsDir);
      await store.put(id, await collectArtifacts({ paths, configuration }));
      return hold();
    },
  }),
};

async function holdAt(step: string): Promise<void> {
  const base = join(root, step);
  let held = 0;
  const hold: Hold = () => {
    held += 1;
    return new Promise(() => {});
  };
  const here = await site({ after() {} }, base, { ...quickLocks(base), ...steps[step]?.(hold, base) });
  const submit = (name: string): Promise<string> =>
    here.submit(host(name), { name: `${name}.yaml`, peerJobId: name });
  await submit('one');
  await submit('two');
  await waitFor(() => held === 2, { what: `two jobs ${step}`, deadlineMs: 30_000 });
  const id = await submit('three');
  const { jobsDir } = here.paths.layout;
  await waitFor(async () => {
    const name = (await readdir(jobsDir)).find((one) => one.startsWith(id) && one.endsWith('.json'));
    return name !== undefined && (await readFile(join(jobsDir, name), 'utf8')).includes('"state":"queued"');
  });
}

await Promise.all(Object.keys(steps).map(holdAt));
console.log('held');
setInterval(() => {}, 60_000);
