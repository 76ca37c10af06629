/** The machine's processors and memory, from files as the kernel writes them. */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { availableParallelism, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { freeMemoryBytes, machineOf, type KernelRoots } from '../../src/process/machine.js';
import { tempDir } from '../support/temp-dir.js';

const mebi = 1024 * 1024;

async function kernel(
  t: TestContext,
  files: Readonly<Record<string, string | number>>,
): Promise<KernelRoots> {
  const root = await tempDir(t);
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, name)), { recursive: true });
    await writeFile(join(root, name), `${text}\n`);
  }
  return { proc: join(root, 'proc'), cgroup: join(root, 'cgroup') };
}

const meminfo =
  'MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    4096 kB\nBuffers: 1 kB';

test('Free memory is the kernel’s available memory, and unknown where the kernel reports none', async (t) => {
  assert.equal(freeMemoryBytes(await kernel(t, { 'proc/meminfo': meminfo })), 4 * mebi);
  assert.equal(freeMemoryBytes(await kernel(t, { 'proc/meminfo': 'MemTotal: 8 kB' })), null);
  assert.equal(freeMemoryBytes({ proc: '/nowhere', cgroup: '/nowhere' }), null);
});

test("A control group's limit counts when it is lower, without the pages that can be dropped, and so do its parents'", async (t) => {
  const group = (
    path: string,
    limit: number | string,
    used: number,
    stat = 'anon 5',
  ): Record<string, string | number> => ({
    [`cgroup/${path}memory.max`]: limit,
    [`cgroup/${path}memory.current`]: used,
    [`cgroup/${path}memory.stat`]: stat,
  });
  const base = { 'proc/meminfo': meminfo, 'proc/self/cgroup': '0::/box/inner' };
  const free = async (...groups: Record<string, string | number>[]): Promise<number | null> =>
    freeMemoryBytes(await kernel(t, Object.assign({}, base, ...groups) as typeof base));
  assert.equal(await free(group('box/inner/', 3 * mebi, 2 * mebi)), mebi);
  assert.equal(
    await free(group('box/inner/', 3 * mebi, 3 * mebi, `anon 1\ninactive_file ${2 * mebi}`)),
    2 * mebi,
  );
  assert.equal(await free(group('box/inner/', 'max', mebi), group('box/', 2 * mebi, mebi)), mebi);
  assert.equal(await free(group('box/inner/', 'max', mebi)), 4 * mebi);
  assert.equal(await free(group('box/inner/', mebi, 2 * mebi)), 0);
  assert.equal(
    await free(group('', 2 * mebi, mebi)),
    mebi,
    'in a container our group is the root that it sees',
  );
});

test('The limits of control groups version 1 count as well', async (t) => {
  const roots = await kernel(t, {
    ...{ 'proc/meminfo': meminfo, 'proc/self/cgroup': '5:cpu,cpuacct:/box\n4:memory:/box\n0::/' },
    ...{
      'cgroup/memory/box/memory.limit_in_bytes': 3 * mebi,
      'cgroup/memory/box/memory.usage_in_bytes': 2.5 * mebi,
    },
    ...{ 'cgroup/memory/box/memory.stat': `inactive_file 7\ntotal_inactive_file ${mebi}` },
    ...{
      'cgroup/memory/memory.limit_in_bytes': '9223372036854771712',
      'cgroup/memory/memory.usage_in_bytes': mebi,
    },
  });
  assert.equal(freeMemoryBytes(roots), 1.5 * mebi);
  assert.equal(machineOf(roots).memoryBytes, 3 * mebi);
});

test('The CPU quota and the memory limit bound the machine', async (t) => {
  const whole = { cores: availableParallelism(), memoryBytes: totalmem() };
  const limited = async (quota: string, limit: string): Promise<object> =>
    machineOf(
      await kernel(t, {
        ...{ 'proc/self/cgroup': '0::/', 'cgroup/cpu.max': quota },
        ...{ 'cgroup/memory.max': limit, 'cgroup/memory.current': 1 },
      }),
    );
  assert.deepEqual(await limited('max 100000', 'max'), whole);
  assert.deepEqual(await limited('50000 100000', `${64 * mebi}`), { cores: 1, memoryBytes: 64 * mebi });
  assert.deepEqual(await limited('9900000 100000', '9223372036854771712'), {
    ...whole,
    cores: Math.min(99, whole.cores),
  });
  assert.deepEqual(machineOf({ proc: '/nowhere', cgroup: '/nowhere' }), whole);
  assert.ok(machineOf().cores >= 1 && machineOf().memoryBytes > mebi);
});

test('On Linux the real files can be read', { skip: process.platform !== 'linux' }, () => {
  const free = freeMemoryBytes();
  assert.ok(free !== null && free > mebi && free <= totalmem(), String(free));
});
