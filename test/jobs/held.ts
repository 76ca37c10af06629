/** Worlds that stand still at a chosen moment, and what a test asks of them. */
import type { TestContext } from 'node:test';

import type { JobRecord } from '../../src/jobs/record.js';
import type { JobEvent } from '../../src/jobs/lifecycle.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { bundleIn, deferred, exampleRequest } from './examples.js';
import { createWorld, type Moment, type World, type WorldOptions } from './harness.js';

export interface Held extends World {
  /** Resolves when a job has come to the moment, where it then stays. */
  readonly reached: Promise<void>;
  letGo(): void;
}

/** A world whose first step of the given name waits until it is let go, or until its own signal is aborted. */
export async function heldAt(
  t: TestContext,
  moment: Moment,
  options: Partial<WorldOptions> = {},
): Promise<Held> {
  const [reached, gone] = [deferred(), deferred()];
  let isFirst = true;
  const world = await createWorld({
    jobsDir: await tempDir(t),
    async gate(at, signal) {
      if (at !== moment || !isFirst) return;
      isFirst = false;
      reached.resolve();
      signal?.addEventListener('abort', () => gone.resolve());
      if (!signal?.aborted) await gone.promise;
    },
    ...options,
  });
  return { ...world, reached: reached.promise, letGo: () => gone.resolve() };
}

export function submitted(
  world: World,
  facts: Parameters<typeof exampleRequest>[0] = {},
): { readonly id: string; readonly ended: Promise<JobRecord> } {
  const { id } = world.jobs.submit(exampleRequest(facts), Promise.resolve(bundleIn(world)));
  return { id, ended: world.ended(id) };
}

export function statesTold(events: readonly JobEvent[], id: string): string[] {
  return events.flatMap((event) => (event.type === 'state' && event.job.id === id ? [event.job.state] : []));
}

export async function waitForStep(world: World, step: Moment, times = 1): Promise<void> {
  await waitFor(() => world.steps.filter((one) => one === step).length >= times, { what: `step ${step}` });
}
