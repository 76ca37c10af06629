/**
 * A whole receiver that waits to be killed: one build runs without end and the bundle of another one is staged. Then
 * it says `busy`, the pid of a program of that build, and its configuration directory.
 */
import { pairedClient, startReceiver, yaml } from '../support/whole.js';
import { waitFor } from '../support/wait-for.js';

const forever = { after() {} };
const whole = await startReceiver(forever, { lockStaleMs: 2_000 });
const { jobs, paths } = whole.receiver;
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
await waitFor(() => jobs.list().at(-1)?.state === 'queued', { what: 'the second job' });
console.log(`busy ${pid} ${paths.configDir}`);
