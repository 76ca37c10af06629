/**
 * A whole receiver that waits to be killed: one build runs without end and the bundle of another one is staged. Then
 * it says `busy`, the pid of a program of that build, and its configuration directory.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { pairedClient, startReceiver, yaml } from '../support/whole.js';
import { waitFor } from '../support/wait-for.js';

const forever = { after() {} };
const whole = await startReceiver(forever, { lockStaleMs: 2_000 });
const { paths } = whole.receiver;
const client = await pairedClient(forever, whole);
const session = await client.openSession();
let pid = '';
for (const name of ['one', 'two']) {
  const file = `${name}.yaml`;
  const bundle = await client.bundle(file, yaml(name, 'fork sleep=600000'));
  const onOutput = (line: string): void => void (pid ||= /forked (\d+)/.exec(line)?.[1] ?? '');
  session.build({ file, bundle, onOutput }).catch(() => {});
  await waitFor(() => pid, { what: 'the first build', deadlineMs: 30_000 });
}
// On disk, for a receiver that is killed before has never had the bundle.
await waitFor(async () => (await statesOnDisk()).includes('queued'), { what: 'the second job' });
console.log(`busy ${pid} ${paths.configDir}`);

async function statesOnDisk(): Promise<unknown[]> {
  const { jobsDir } = paths.layout;
  const names = (await readdir(jobsDir)).filter((name) => /^[0-9a-f].*\.json$/.test(name));
  const texts = await Promise.all(names.map((name) => readFile(join(jobsDir, name), 'utf8')));
  return texts.map((text) => (JSON.parse(text) as { state: unknown }).state);
}
