/** The key of a configuration that must be a peer's: what is done to builds of peers is never done to the host's own. */
import { ReceiverError } from '../errors.js';
import type { RemoteKey } from './configuration.js';
import type { Paths } from './resolver.js';

/** Throws `STATE` for a local configuration, `TRAVERSAL` for one that is refused. */
export function remoteKeyOf(paths: Pick<Paths, 'parseConfiguration'>, configuration: string): RemoteKey {
  const key = paths.parseConfiguration(configuration);
  if (key !== null) return key;
  throw new ReceiverError('STATE', "this is a configuration of the host's own", { configuration });
}
