/** When a process of this example ends: at Ctrl-C, at SIGTERM, and together with the process that started it. */

/** Aborted at the first of these, so that no process outlives the example. */
export function endingSignal(): AbortSignal {
  const ending = new AbortController();
  for (const event of ['SIGINT', 'SIGTERM', 'disconnect']) process.on(event, () => ending.abort());
  process.channel?.unref(); // whose listener would keep the process alive
  return ending.signal;
}

export async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted)
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
}
