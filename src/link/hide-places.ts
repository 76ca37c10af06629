/**
 * Takes the places of this machine out of what a compiler prints before a peer sees it. ESPHome names its
 * directories in every log; they tell a stranger the account, the layout and the ids of other peers. The job's own
 * log keeps them.
 */
import { realpath } from 'node:fs/promises';

import type { Layout, RemoteKey } from '../paths/index.js';

/** The line as the peer of that job may see it. */
export type HidePlaces = (line: string, key: RemoteKey) => string;

/** Names in the device's own directory become relative to it; what lies below one of `places` begins with `…`. */
export function createHidePlaces(
  layout: Pick<Layout, 'subtree' | 'buildsDir'>,
  places: readonly string[],
): HidePlaces {
  const longestFirst = places.filter((place) => place.length > 1).toSorted((a, b) => b.length - a.length);
  return function hidePlaces(line, key) {
    if (!line.includes('/')) return line;
    let shown = line.includes(layout.buildsDir) ? line.replaceAll(`${layout.subtree(key)}/`, '') : line;
    for (const place of longestFirst) shown = shown.replaceAll(place, '…');
    return shown;
  };
}

/** The places, and where their links lead: a compiler prints either. Each must exist. */
export async function withRealPaths(places: readonly string[]): Promise<string[]> {
  return [...places, ...(await Promise.all(places.map((place) => realpath(place))))];
}
