/**
 * Which files of `src` a running receiver enters for one build, one sweep and one restart, in order: what somebody reads
 * who follows that flow through the code.
 *
 *     npm run flows -- [FLOW ...] [--check] [--markdown]
 *
 * Without a name it measures all flows. `--check` fails when one of them enters more files than its goal; `--markdown`
 * prints only the table, for docs/ARCHITECTURE.md.
 */
import { parseArgs } from 'node:util';

import { flowNames, recordFlows, type FlowName, type Recordings } from './flows.js';
import { describeFlow, filesOf, overGoal, summarize } from './report.js';

const deadlineMs = 55_000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { check: { type: 'boolean', default: false }, markdown: { type: 'boolean', default: false } },
});
const unknown = positionals.filter((name) => !flowNames.includes(name as FlowName));
if (unknown.length > 0) {
  console.error(`unknown flow ${unknown.join(', ')}: expected ${flowNames.join(', ')}`);
  process.exit(1);
}
const wanted = positionals.length > 0 ? (positionals as FlowName[]) : flowNames;

const recordings = await recordAndCleanUp();
const files = new Map(wanted.map((name) => [name, filesOf(recordings[name] ?? [])]));
const details = values.markdown ? [] : [...files].map(([name, entered]) => describeFlow(name, entered));
console.log([...details, summarize(files, values.markdown)].join('\n'));
if (values.check) {
  for (const sentence of overGoal(files)) {
    console.error(sentence);
    process.exitCode = 1;
  }
}

async function recordAndCleanUp(): Promise<Recordings> {
  const cleanups: (() => Promise<void> | void)[] = [];
  try {
    const t = { after: (cleanup: () => Promise<void> | void) => void cleanups.unshift(cleanup) };
    return await Promise.race([recordFlows(t, wanted), interrupted()]);
  } finally {
    for (const cleanup of cleanups) await cleanup();
  }
}

/** Rejects when the user stops the measurement, and when it takes too long. */
function interrupted(): Promise<never> {
  return new Promise((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.once(signal, () => reject(new Error(`stopped by ${signal}`)));
    setTimeout(() => reject(new Error(`the flows took over ${deadlineMs} ms`)), deadlineMs).unref();
  });
}
